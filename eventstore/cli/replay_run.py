"""`eventstore replay plan | run`: what a replay would do, and doing it."""

import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer

from eventstore.cli.console import AsJson, err, print_json
from eventstore.cli.replay_options import with_range
from eventstore.cli.replay_view import Follower, plan_document, print_plan, say
from eventstore.clock import now_ms
from eventstore.config import Settings, load_settings
from eventstore.errors import ConfigurationError, ExitCode, RefusedError
from eventstore.registry import load_registry
from eventstore.replay.plan import Plan, running_into
from eventstore.replay.planning import GAP_MEND, Request, Survey, survey
from eventstore.replay.ranges import refuse
from eventstore.replay.reset import reset_group
from eventstore.replay.state import Replay, Replays, Status
from eventstore.replay.targets import unready

Rate = Annotated[
    float | None, typer.Option(min=0.1, metavar="RECORDS", help="Most records a second, of all processes together.")
]
BesideOthers = Annotated[
    bool, typer.Option("--beside-others", help="Run although another replay does part of the same range.")
]


@with_range
def show_plan(request: Request, *, rate: Rate = None, as_json: AsJson = False) -> None:
    """Show what a replay would do; write nothing. Exit 3 if something stands in its way.

    A range begins where one of --from-offset, --from-timestamp, --last, --from-mark and --from-earliest says, and ends
    where the live group stands now unless another end is named. Times are those at which Kafka was given the records.

    Examples:
    - `eventstore replay plan --last 6h`
    - `eventstore replay plan --from-mark es30-20260901T030000Z --cluster es30`
    - `eventstore replay plan --from-timestamp 2026-09-01T03:00:00Z --to-latest --tenant shop --event order_placed --json`
    """
    settings = load_settings()
    with err.status("looking at the range"):
        found, plan = _surveyed(settings, request, rate, 1)
        obstacles = _obstacles(settings, found, plan, beside_others=False)
    _show(settings, plan, found, obstacles, as_json=as_json)
    if obstacles:
        sys.exit(ExitCode.REFUSED)


@with_range
def run_replay(
    request: Request,
    *,
    execute: Annotated[bool, typer.Option("--execute", help="Really do it. Without it, only show the plan.")] = False,
    rate: Rate = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the work.")] = 1,
    beside_others: BesideOthers = False,
    resetting: Annotated[
        bool,
        typer.Option(
            "--reset-group",
            help="No replay of its own: move the live group itself back (its workers must be stopped). Where it stood "
            "is kept as a mark.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Plan a replay and, with --execute, run it to its end.

    It is a consumer group of its own beside live traffic and stores the same rows by the same rules, so events that are
    there already do not change. Plan and progress live in Kafka: whatever ends it, `eventstore replay resume` goes on
    from the last commit, on any host. Ctrl-C stops it so that it can be resumed. Exit 0 only when it is done; `--json`
    prints a line a second.

    Records that are rejected are counted, not dead-lettered: they were when they first came.

    Examples:
    - `eventstore replay run --last 6h`
    - `eventstore replay run --from-mark es30-20260901T030000Z --cluster es30 --execute --workers 2`
    - `eventstore replay run --from-offset offsets.csv --to-latest --tier t30 --into es30b --rate 5000 --execute --json`
    - `eventstore replay run --from-timestamp 2026-09-01T03:00:00Z --reset-group --execute`
    """
    settings = load_settings()
    if resetting:
        if rate is not None or workers != 1 or beside_others:
            raise ConfigurationError(
                "--reset-group: expected neither --rate nor --workers nor --beside-others: the live workers store the range "
                "as they store everything; leave them out"
            )
        _reset(settings, request, execute=execute, as_json=as_json)
        return
    with err.status("looking at the range"):
        found, plan = _surveyed(settings, request, rate, workers)
        obstacles = _obstacles(settings, found, plan, beside_others=beside_others)
    if not (execute and as_json):
        _show(settings, plan, found, obstacles, as_json=as_json)
    if not execute:
        err.print("Nothing was written; add --execute to run it.")
        sys.exit(ExitCode.REFUSED if obstacles else ExitCode.DONE)
    refuse(obstacles)
    with err.status("noting the plan"):
        replays = Replays.of(settings)
        replays.forget_old(now_ms())
        replays.begin(Replay(plan, Status.RUNNING, now_ms()), beside_others=beside_others)
    carry_out(settings, plan, workers, as_json=as_json)


def _surveyed(settings: Settings, request: Request, rate: float | None, workers: int) -> tuple[Survey, Plan]:
    now = now_ms()
    found = survey(settings, load_registry(settings.registry), request, now)
    made = datetime.fromtimestamp(now / 1_000, UTC)
    plan = found.plan(settings, request, f"{made:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}", now)
    return found, msgspec.structs.replace(plan, rate=rate, workers=workers)


def _obstacles(settings: Settings, found: Survey, plan: Plan, *, beside_others: bool) -> list[str]:
    """Why the plan must not be run as it is."""
    gaps = [f"{gap}; {GAP_MEND}" for gap in found.gaps]
    conflicts = [] if beside_others else list(running_into(plan, Replays.of(settings).running()))
    return [*gaps, *conflicts, *unready(found.meant, settings.writer.request_timeout)]


def _show(settings: Settings, plan: Plan, found: Survey, obstacles: Sequence[str], *, as_json: bool) -> None:
    expected = settings.replay.expected_rate * plan.workers
    rate = expected if plan.rate is None else min(plan.rate, expected)
    if as_json:
        print_json(plan_document(plan, found, obstacles, rate))
    else:
        print_plan(plan, found, obstacles, rate)


def carry_out(settings: Settings, plan: Plan, workers: int, *, as_json: bool) -> None:
    from workers.coordinator import Coordinator  # noqa: PLC0415 — as above

    if as_json:
        print_json({"event": "started", "replay": plan.id, "group": plan.group, "records": plan.records})
    else:
        say(f"Replay {plan.id}, group {plan.group}.")
    with Follower(plan.id, as_json=as_json).showing() as follower:
        outcome = Coordinator(settings, plan, workers, follower.hear).run()
    reached, account = outcome.progress, outcome.account
    if as_json:
        document: dict[str, Any] = {
            "event": outcome.status.value,
            "replay": plan.id,
            "seconds": round(outcome.seconds, 1),
        }
        print_json(document | {"done": reached.done, "records": reached.total, "run": msgspec.to_builtins(account)})
    else:
        rejected = ", ".join(f"{reason} {count:,}" for reason, count in account.rejected.items())
        say(
            f"{account.records:,} records in {outcome.seconds:,.0f} s: {account.skipped:,} outside the scope, rejected: "
            f"{rejected or 'none'}. {reached.done:,} of {reached.total:,} done."
        )
    if outcome.status is Status.CANCELLED:
        raise RefusedError(f"replay {plan.id}: it was cancelled")
    if outcome.status is not Status.DONE:
        err.print(f"Not done: go on with `eventstore replay resume {plan.id}`.")
        sys.exit(ExitCode.FAILED)


def _reset(settings: Settings, request: Request, *, execute: bool, as_json: bool) -> None:
    if request != Request(request.start, accept_gap=request.accept_gap):
        raise ConfigurationError(
            "--reset-group: expected only where to begin, got an end or a filter too; the live group stores everything "
            "from there on: leave them out, or leave --reset-group out"
        )
    with err.status("looking at the group"):
        moved = reset_group(settings, load_registry(settings.registry), request, now_ms(), execute=execute)
    if as_json:
        print_json(msgspec.to_builtins(moved, str_keys=True) | {"executed": execute})
        return
    for partition, (before, after) in moved.offsets.items():
        say(f"{settings.topics.events}/{partition}: from {before} to {after}")
    if execute:
        say(f"Group {moved.group} begins there; where it stood is kept as mark {moved.mark}.")
        say(f"To take it back before its workers start: --from-mark {moved.mark} --reset-group --execute")
    else:
        err.print("Nothing was written; add --execute to do it.")
