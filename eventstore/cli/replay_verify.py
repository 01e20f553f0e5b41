"""`eventstore replay verify`: proof that a range is stored."""

import asyncio
import sys
from typing import Annotated, Any, Final

import msgspec
import typer

from eventstore.cli.console import AsJson, err, print_json, printable, progress
from eventstore.cli.replay_options import with_range
from eventstore.cli.replay_view import say
from eventstore.clock import now_ms
from eventstore.config import Settings, load_settings
from eventstore.errors import ConfigurationError, ExitCode
from eventstore.logs import setup_logging
from eventstore.registry import load_registry
from eventstore.replay.expected import Found
from eventstore.replay.planning import Request, survey
from eventstore.replay.scope import scoped
from eventstore.replay.state import Replays
from eventstore.replay.verify import Finding, Verifier
from eventstore.replay.walk import Walk

MENDS: Final = {
    Found.RESURRECTED: "rows of erased users; delete them with `eventstore erasures repeat`",
    Found.OVERWRITTEN: "rows that somebody else wrote later than any event of their time; --repair cannot win over them",
}


@with_range
def verify(
    replay_id: Annotated[
        str | None, typer.Argument(metavar="[REPLAY]", help="The range and scope of this replay.")
    ] = None,
    request: Request | None = None,
    *,
    sample: Annotated[
        float, typer.Option(min=0.0, max=1.0, metavar="SHARE", help="Look at this share of the records only: 0.01.")
    ] = 1.0,
    repair: Annotated[
        bool, typer.Option("--repair", help="Store what is missing or different, and look again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check every record of a range against the store, by the rule book and not by the replay's own quick way.

    A record is as it must be if its row is on its cluster with all columns and its write time; or if a newer write of the
    same millisecond, its expiry, a rejection or the scope says that it need not be; and if no row of an erased user is
    there. Every other one is printed with its coordinates; then the exit code is 1. Records that wait in a retry topic are missing until they are brought home.

    Examples:
    - `eventstore replay verify 20260901T030000Z-1f2e`
    - `eventstore replay verify --last 6h --sample 0.01`
    - `eventstore replay verify --from-mark es30-20260901T030000Z --cluster es30 --repair --json`
    """
    if sample == 0:
        raise ConfigurationError("--sample: expected a share above 0, up to 1, got 0, which looks at nothing")
    settings = load_settings()
    if repair:  # the writers log, and results alone go to standard output
        setup_logging(settings.log)
    with err.status("looking at the range"):
        walk = _walk(settings, replay_id, request)

    def tell(finding: Finding) -> None:
        if as_json:
            print_json({"event": "wrong"} | msgspec.to_builtins(finding))
        else:
            mended = ", repaired" if finding.repaired else ""
            of = printable(f"{finding.tenant}:{finding.uid}")
            what = f"eid {finding.eid}" if finding.eid else "impressions"
            say(f"{finding.what.value}: {finding.source} of {of}, {what}, on {finding.cluster}{mended}")

    with progress() as bar:
        task = bar.add_task("verifying", note="", total=None)
        found = asyncio.run(
            walk.verify(
                tell,
                lambda passed, total: bar.update(task, completed=passed, total=total),
                fraction=sample, repairing=repair,
            )
        )  # fmt: skip
    _print(found, as_json=as_json)
    walk.check_whole(found)
    if found.wrong:
        sys.exit(ExitCode.FAILED)


def _walk(settings: Settings, replay_id: str | None, request: Request | None) -> Walk:
    registry = load_registry(settings.registry)
    if (replay_id is None) == (request is None):
        raise ConfigurationError("expected a replay or a range (--last, --from-...), got both or neither")
    if request is not None:
        found = survey(settings, registry, request, now_ms())
        found.check()
        return Walk(settings, found.ranges, found.meant, request.scope)
    plan = Replays.of(settings).get(replay_id or "").plan
    if plan.topic != settings.topics.events:
        raise ConfigurationError(
            f"replay {plan.id}: expected one of topic {settings.topics.events}, it is of {plan.topic}; set "
            "EVENTSTORE_TOPICS__EVENTS"
        )
    return Walk(settings, plan.ranges, scoped(registry, plan.scope), plan.scope)


def _print(found: Verifier, *, as_json: bool) -> None:
    counts = {name: count for name, count in found.counts.items() if count}
    if as_json:
        document: dict[str, Any] = {"event": "verified", "wrong": found.wrong, "counts": counts}
        print_json(document)
    else:
        records = counts.pop("records", 0)
        told = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda each: -each[1]))
        say(f"{records:,} records: {told or 'nothing to look at'}. {found.wrong:,} not as they must be.")
        for what, mend in MENDS.items():
            if counts.get(what.value):
                say(f"{what.value}: {mend}")
