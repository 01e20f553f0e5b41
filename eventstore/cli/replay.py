"""`eventstore replay`: a range of the event topic stored once more, beside live traffic."""

import sys
import time
from typing import Annotated, Final

import typer

from eventstore.cli.console import AsJson, err, print_json
from eventstore.cli.replay_options import AcceptGap
from eventstore.cli.replay_run import carry_out, run_replay, show_plan
from eventstore.cli.replay_verify import verify
from eventstore.cli.replay_view import print_replays, replay_document, say
from eventstore.clock import now_ms
from eventstore.config import Settings, load_settings
from eventstore.errors import RefusedError
from eventstore.logs import setup_logging
from eventstore.replay.plan import Plan, Progress, progress
from eventstore.replay.planning import GAP_MEND
from eventstore.replay.ranges import aged_out, behind_gaps, cut_off, refuse
from eventstore.replay.state import Replay, Replays, Status
from eventstore.stream.offsets import TopicOffsets

replay = typer.Typer(
    name="replay", help="Store a range of the event topic once more, beside live traffic.", no_args_is_help=True
)
for name, command in (("plan", show_plan), ("run", run_replay), ("verify", verify)):
    replay.command(name)(command)

LOOK_SECONDS: Final = 0.5
"""Between two looks at a replay's group."""

Id = Annotated[str, typer.Argument(metavar="REPLAY", help="The replay's id, as `status` shows it.")]


def register(app: typer.Typer) -> None:
    app.add_typer(replay)


@replay.command()
def resume(
    replay_id: Id,
    *,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that share the work. Default: as many as it was planned with.")
    ] = None,
    accept_gap: AcceptGap = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a replay from its last commit, here, whatever ended it and wherever it ran.

    Processes that still run elsewhere are replaced, one by one: they end, and say so.

    Examples:
    - `eventstore replay resume 20260901T030000Z-1f2e`
    - `eventstore replay resume 20260901T030000Z-1f2e --workers 4 --json`
    - `eventstore replay resume 20260901T030000Z-1f2e --accept-gap`
    """
    settings = load_settings()
    with err.status("looking at the replay"):
        plan = Replays.of(settings).get(replay_id).become(Status.RUNNING, now_ms()).plan
        _close_gaps(settings, plan, accept_gap=accept_gap)
    carry_out(settings, plan, workers or plan.workers, as_json=as_json)


@replay.command()
def pause(replay_id: Id) -> None:
    """Have a replay finish what it has begun, commit, and stop, wherever it runs; waits until it has.

    Examples:
    - `eventstore replay pause 20260901T030000Z-1f2e`
    """
    _have(replay_id, Status.PAUSED)
    say(f"Go on with `eventstore replay resume {replay_id}`.")


@replay.command()
def cancel(replay_id: Id) -> None:
    """Stop a replay for good, wherever it runs, and wait until it has. What it has stored stays.

    Examples:
    - `eventstore replay cancel 20260901T030000Z-1f2e`
    """
    _have(replay_id, Status.CANCELLED)


@replay.command()
def status(
    replay_id: Annotated[
        str | None, typer.Argument(metavar="[REPLAY]", help="Default: all of the last 30 days.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show replays: what became of them, how far they are, and how many processes work on them.

    Examples:
    - `eventstore replay status`
    - `eventstore replay status 20260901T030000Z-1f2e --json`
    """
    settings = load_settings()
    replays = Replays.of(settings)
    with err.status("asking how far they are"):
        found = [replays.get(replay_id)] if replay_id else replays.all()
        shown = [(each, *_standing(settings, each)) for each in found]
    if as_json:
        documents = [replay_document(*each) for each in shown]
        print_json(documents[0] if replay_id else documents)
    else:
        print_replays(shown)


@replay.command("work", hidden=True)
def work(
    replay_id: Id,
    *,
    index: Annotated[int, typer.Option(min=0, help="Which of the processes this is.")] = 0,
    of: Annotated[int, typer.Option(min=1, help="How many there are.")] = 1,
) -> None:
    """One process of a replay; `run` and `resume` start as many as are wanted.

    Examples:
    - `eventstore replay work 20260901T030000Z-1f2e --index 0 --of 2`
    """
    from workers import replay as process  # noqa: PLC0415 — uvloop and the drivers load only where they are used

    settings = load_settings()
    setup_logging(settings.log)
    sys.exit(process.main(settings, replay_id, index, of))


def _close_gaps(settings: Settings, plan: Plan, *, accept_gap: bool) -> None:
    """Have the group go on behind what the topic has let go of, if that is accepted.

    Raises:
        RefusedError: it is not; or the topic ends before the plan does; or processes still work on the replay.
    """
    offsets = TopicOffsets(settings.kafka, plan.topic)
    held, left = offsets.held(), progress(plan, offsets.committed(plan.group)).left()
    refuse(cut_off(plan.topic, left, held))
    if not accept_gap:
        refuse(aged_out(plan.topic, left, held, {}), GAP_MEND)
    elif moves := behind_gaps(left, held):
        if members := offsets.members(plan.group):
            raise RefusedError(
                f"replay {plan.id}: expected nobody to work on it, found {len(members)} processes ({members[0]}); first "
                f"`eventstore replay pause {plan.id}`"
            )
        offsets.move(plan.group, moves)


def _have(replay_id: str, wanted: Status) -> None:
    """Note what is wanted, and wait until nobody works on the replay any more."""
    settings = load_settings()
    replays = Replays.of(settings)
    with err.status("waiting until its processes have finished what they have begun"):
        plan = replays.become(replay_id, wanted, now_ms()).plan
        members = _remaining(settings, plan)
        found = replays.get(replay_id).status
        if wanted is Status.CANCELLED and found is Status.RUNNING:  # noted over ours by a run that began at this moment
            found = replays.become(replay_id, wanted, now_ms()).status
            members = _remaining(settings, plan)
    if found is not wanted:
        raise RefusedError(
            f"replay {replay_id}: expected it to be {wanted.value}, it is {found.value}: it ended, or somebody resumed it, "
            "meanwhile; see `eventstore replay status`"
        )
    if members:
        say(f"Replay {replay_id} will be {wanted.value}: {len(members)} processes still work on it ({members[0]}).")
    else:
        say(f"Replay {replay_id} is {wanted.value}.")


def _remaining(settings: Settings, plan: Plan) -> list[str]:
    """Who is in the replay's group still when everybody has had time to hear of it and to leave."""
    offsets = TopicOffsets(settings.kafka, plan.topic)
    worker = settings.worker
    deadline = time.monotonic() + worker.session_timeout + worker.drain_timeout
    while (members := offsets.members(plan.group)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return members


def _standing(settings: Settings, what: Replay) -> tuple[Progress, list[str]]:
    plan = what.plan
    if what.status is Status.DONE:  # Kafka forgets groups in which nothing happens
        return progress(plan, plan.ends()), []
    offsets = TopicOffsets(settings.kafka, plan.topic)
    return progress(plan, offsets.committed(plan.group)), offsets.members(plan.group)
