"""`python -m tests.benchmarks run|check|record|profile`: what `make bench`, `bench-check`, `bench-record`, `profile` call."""

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from eventstore.cli.console import err, out
from eventstore.cli.local import shown_progress
from tests.benchmarks import plots, ratios, results, scenarios
from tests.benchmarks.arena import Arena
from tests.benchmarks.bench import FULL, QUICK, Bench, Scale
from tests.benchmarks.profile import profile as worker_profile
from tests.benchmarks.results import Result, Run
from tests.benchmarks.servers import servers

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Events = Annotated[int, typer.Option(envvar="BENCH_EVENTS", help="Events of the main load.")]


@app.command()
def run(
    names: Annotated[str, typer.Option("--scenarios", envvar="SCENARIOS", help="Comma-separated; default: all.")] = "",
    events: Events = FULL.events,
    rounds: Annotated[int, typer.Option(help="Turns of what is compared.")] = FULL.rounds,
    size: Annotated[str, typer.Option(envvar="BENCH", help="`quick`: a small load, to see that all works.")] = "full",
) -> None:
    """Run scenarios on the embedded stack; results go to bench-results/."""
    chosen = scenarios.chosen(names)
    scale = QUICK if size == "quick" else Scale(events, rounds)
    began = results.now()
    with arena() as place:
        bench = Bench(place, scale, show)
        try:
            for scenario in chosen:
                err.print(f"-- {', '.join(scenario.names)}: {scenario.what}", style="bold")
                scenario.run(bench)
        finally:
            found = results.save(bench.results, scale.events, began)
            plots.draw(found, results.FOLDER)
    out.print(results.markdown(found), markup=False, soft_wrap=True)
    err.print(f"written to {results.FOLDER}")


@app.command()
def check() -> None:
    """Compare the ratios of the last run with those recorded in docs/benchmarks.json."""
    before, now = ratios.recorded(), ratios.measured(_last_run())
    out.print(ratios.report(before, now), markup=False)
    raise typer.Exit(1 if ratios.losses(before, now) or not now else 0)


@app.command()
def record() -> None:
    """Make the ratios of the last run those that later runs are compared with."""
    ratios.record(_last_run())


@app.command()
def profile(events: Events = FULL.events) -> None:
    """Attribute the lane worker's CPU to the stages of an event's journey."""
    with arena() as place:
        found = worker_profile(Bench(place, Scale(events)))
    results.FOLDER.mkdir(exist_ok=True)
    (results.FOLDER / "profile.md").write_text(found + "\n", "utf-8")
    out.print(found, markup=False, soft_wrap=True)


def _last_run() -> Run:
    if not results.LATEST.exists():
        err.print(f"expected the results of a run in {results.LATEST}, found none; run `make bench` first")
        raise typer.Exit(2)
    return results.load()


@contextmanager
def arena() -> Iterator[Arena]:
    """Servers and a place for one run; nothing of it is left but the servers' data directory."""
    with (
        shown_progress() as progress,
        servers(progress) as (bootstrap_servers, cluster),
        tempfile.TemporaryDirectory(prefix="eventstore-bench-") as folder,
    ):
        place = Arena(bootstrap_servers, cluster, Path(folder))
        try:
            yield place
        finally:
            place.close()


def show(result: Result) -> None:
    out.print(f"{time.strftime('%H:%M:%S')} {results.line(result)}", markup=False, soft_wrap=True)


def _end(number: int, _: object) -> None:
    """Ended from outside, a run still stops its servers and workers."""
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    app()
