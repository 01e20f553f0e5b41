"""`python -m tests.chaos run|table|down`: what `make chaos` and `make chaos-short` call."""

import json
import shutil
import signal
import time
import traceback
from typing import Annotated

import typer

from eventstore.cli.console import err, out
from tests.chaos import results
from tests.chaos.catalogue import SCENARIOS, SHORT_EVENTS, Scenario
from tests.chaos.field import LONG_EVENTS, Field, open_field
from tests.chaos.oracle import Verdict
from tests.chaos.results import Outcome
from tests.chaos.servers import Servers, running_servers, servers

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(
    names: Annotated[str, typer.Option("--scenarios", envvar="SCENARIO", help="Comma-separated; default: all.")] = "",
    events: Annotated[int, typer.Option(envvar="CHAOS_EVENTS", help="Of each scenario; 0: as many as it takes.")] = 0,
    *,
    short: Annotated[bool, typer.Option("--short", help="The short suite, for every commit.")] = False,
    keep: Annotated[bool, typer.Option("--keep", envvar="KEEP", help="Leave the servers running.")] = False,
) -> None:
    """Break things and count what is lost. Exit 1 if anything is."""
    chosen = _chosen(names, short=short)
    count = events or (SHORT_EVENTS if short else LONG_EVENTS)
    failed = False
    with running_servers(keep=keep) as up:
        for name in chosen:
            err.print(f"-- {name}: {(SCENARIOS[name].run.__doc__ or '').splitlines()[0]}", style="bold")
            outcome = play(name, up, count)
            results.save(outcome)
            out.print(results.line(outcome), markup=False, soft_wrap=True)
            failed |= not outcome.passed
    raise typer.Exit(1 if failed else 0)


def _chosen(names: str, *, short: bool) -> list[str]:
    asked = [name for name in names.split(",") if name]
    if unknown := [name for name in asked if name not in SCENARIOS]:
        err.print(f"expected scenarios of {', '.join(SCENARIOS)}; got {', '.join(unknown)}")
        raise typer.Exit(2)
    return asked or [name for name, scenario in SCENARIOS.items() if scenario.short or not short]


def play(name: str, up: Servers, events: int) -> Outcome:
    """One scenario from an empty field to its reckoning."""
    scenario, begun = SCENARIOS[name], time.monotonic()
    with open_field(name, up, scenario.terms(events)) as field:
        verdict, failure = Verdict(), None
        try:
            scenario.run(field)
            field.settle()
            verdict = field.judge(field.evidence())
        except Exception as error:  # noqa: BLE001 — told in the scenario's line; the next one begins on a new field
            failure = f"{type(error).__name__}: {error}"
            err.print(traceback.format_exc(), markup=False)
        _keep_traces(field)
        return _outcome(scenario, field, verdict, failure, time.monotonic() - begun)


def _outcome(scenario: Scenario, field: Field, verdict: Verdict, failure: str | None, seconds: float) -> Outcome:
    return Outcome(
        scenario=field.name,
        row=scenario.row,
        events=len(field.publisher.acknowledged),
        faults=field.faults,
        kills=field.kills,
        verdict=verdict.counts(),
        freshness_worst_s=round(field.freshness.worst_seconds(), 2),
        freshness_p99_ms=round(field.freshness.quantile_ms(0.99), 1),
        recovery_s=field.recovery_seconds,
        seconds=round(seconds, 1),
        figures=field.figures,
        examples=verdict.examples,
        failure=failure,
    )


def _keep_traces(field: Field) -> None:
    """The workers' log; freshness, lag and memory over time."""
    results.FOLDER.mkdir(exist_ok=True)
    if field.world.log.exists():
        shutil.copy(field.world.log, results.FOLDER / f"{field.name}.log")
    traces = {"freshness": field.freshness.seen, "samples": field.samples}
    (results.FOLDER / f"{field.name}.traces.json").write_text(json.dumps(traces), "utf-8")


@app.command()
def table() -> None:
    """Write the last results into docs/reliability.md."""
    found = [outcome for name in SCENARIOS if (outcome := results.load(name)) is not None]
    results.write_table(found, SCENARIOS)


@app.command()
def down() -> None:
    """Stop servers that were kept."""
    servers().down()


def _end(number: int, _: object) -> None:
    """Ended from outside, a run still stops its servers and workers."""
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    app()
