"""`eventstore erase`: a user's past is deleted and stays deleted."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import msgspec
import typer

from eventstore.cli.console import AsJson, err, out, print_json, printable, progress, table
from eventstore.cli.timeline import instant
from eventstore.clock import now_ms
from eventstore.config import Settings, load_settings
from eventstore.errors import EventstoreError, ExitCode, QueryError, UnknownTenantError
from eventstore.events.erasure import Erasure
from eventstore.events.moment import rfc3339
from eventstore.ingest.admission import ClockRules
from eventstore.registry import load_registry
from eventstore.replay.erasure import Holding, Reach, Survey, holders, reach, survey, unused_clusters
from eventstore.replay.state import Replays
from eventstore.store.eraser import delete_partitions
from eventstore.store.reader import EventReaders
from eventstore.stream.erasures import ErasureTable
from eventstore.tenancy import Registry, Tier
from eventstore.timeline import TimelineQuery

REQUEST_SECONDS = 30.0
"""Time for one delete that every replica must confirm."""
PARALLEL = 8
"""Clusters at the same time."""

Execute = Annotated[bool, typer.Option("--execute", help="Really do it. Without it, only show what would be done.")]


def register(app: typer.Typer) -> None:
    app.command("erase")(erase)


def erase(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name in the registry.")],
    uid: Annotated[str, typer.Argument(metavar="UID", help="The user's id, as its producers send it.")],
    *,
    to: Annotated[
        int | None,
        typer.Option(parser=instant, metavar="RFC3339", help="The last event time to erase. Default: now."),
    ] = None,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Erase one user's past up to now, for good. Without --execute only show what is stored where.

    The erasure is recorded first: from then on workers, replays and dead letters leave out every event of the user at or
    before that moment. Then the user's partitions are deleted on every replica of every cluster of the registry. Newer
    events stay and go on being stored. Safe to repeat. A cluster that is away holds up no other: exit 1 says which still
    owe the delete.

    Kafka keeps the user's records, dead letters included, until their topic's retention ends; see docs/erasure.md.

    Examples:
    - `eventstore erase shop u-4711`
    - `eventstore erase shop u-4711 --execute`
    - `eventstore erase shop u-4711 --to 2026-03-01T00:00:00Z --execute --json`
    """
    settings = load_settings()
    registry = load_registry(settings.registry)
    records = ErasureTable(settings.kafka, settings.topics.erasures)
    asked = _asked(settings, tenant, uid, to)
    with err.status("reading what is erased already"):
        standing = records.find(tenant, uid)
        tiers = known_holders(settings, registry)
    within = reach(tiers, now_ms(), clock_rules(settings))
    if tenant not in registry.tenants and standing is None:
        _check_spelling(asked, _survey(settings, asked, within))
    if not execute:
        # never less than what is erased already: a tombstone cannot be taken back
        erasure = max(asked, standing or asked)
        seen = _survey(settings, erasure, within)
        _print_plan(erasure, seen, as_json=as_json)
        _warn_of_unused(registry, tiers)
        raise typer.Exit(ExitCode.FAILED if seen.unseen else ExitCode.DONE)
    with err.status("recording the erasure"):
        erasure = records.record(asked)
    before = _survey(settings, erasure, within)
    failures = delete_everywhere(within, [erasure])
    left = _survey(settings, erasure, [each for each in within if each.cluster.name not in failures])
    done = Done(erasure, before, left, {**failures, **left.unseen})
    _print_done(done, as_json=as_json)
    _warn_of_unused(registry, tiers)
    if not done.complete:
        raise typer.Exit(ExitCode.FAILED)


@dataclass(frozen=True, slots=True)
class Done:
    erasure: Erasure
    before: Survey
    left: Survey
    """Of the clusters that have deleted."""
    owed: Mapping[str, str]
    """Why a cluster has not been seen to have deleted everything, by its name."""

    @property
    def complete(self) -> bool:
        return not self.owed and not any(holding.rows for holding in self.left.found)


def _check_spelling(asked: Erasure, seen: Survey) -> None:
    """Raises UnknownTenantError if nobody has ever heard of the user."""
    if not seen.found:
        unseen = f" ({', '.join(seen.unseen)} could not be asked)" if seen.unseen else ""
        raise UnknownTenantError(
            f"tenant: expected one of the registry, or one with rows of user {asked.uid!r}, got {asked.tenant!r}{unseen}; "
            "check the spelling"
        )


def _asked(settings: Settings, tenant: str, uid: str, to_ms: int | None) -> Erasure:
    TimelineQuery(tenant, uid)  # raises QueryError for names that no event can have
    now = now_ms()
    last_ms = now + int(settings.worker.max_future * 1_000)
    if to_ms is not None and to_ms > last_ms:
        raise QueryError(
            f"--to: expected a time up to {rfc3339(last_ms)}, the furthest that an event may lie ahead, "
            f"got {rfc3339(to_ms)}; leave it out to erase up to now"
        )
    # an event of that very millisecond may have microseconds
    return Erasure(tenant, uid, (now if to_ms is None else to_ms) * 1_000 + 999, now)


def clock_rules(settings: Settings) -> ClockRules:
    return ClockRules(settings.worker.max_future, settings.worker.late_after)


def _survey(settings: Settings, erasure: Erasure, within: Sequence[Reach]) -> Survey:
    async def look() -> Survey:
        readers = EventReaders(settings.reader)
        try:
            return await survey(erasure, within, readers)
        finally:
            await readers.close()

    with err.status("looking at what is stored"):
        return asyncio.run(look())


def delete_everywhere(within: Sequence[Reach], of: Sequence[Erasure]) -> dict[str, str]:
    """Delete on all clusters at once; why it failed, by cluster. One's trouble stays its own."""
    with progress() as bars, ThreadPoolExecutor(PARALLEL) as pool:

        def on_cluster(each: Reach) -> str | None:
            bar = bars.add_task(each.cluster.name, total=1, note="deleting")
            doomed = [partition for erasure in of for partition in each.doomed(erasure)]
            try:
                delete_partitions(each.cluster, doomed, request_timeout=REQUEST_SECONDS)
            except EventstoreError as error:
                return str(error)
            finally:
                bars.update(bar, advance=1, note="")
            return None

        failures = zip(within, pool.map(on_cluster, within), strict=True)
        return {each.cluster.name: failure for each, failure in failures if failure is not None}


def _print_plan(erasure: Erasure, seen: Survey, *, as_json: bool) -> None:
    if as_json:
        print_json({"executed": False, "erasure": as_document(erasure), "found": _found(seen), "unseen": seen.unseen})
        return
    out.print(_holdings(erasure, seen.found))
    for why in seen.unseen.values():
        err.print(f"not looked at: {why}; --execute erases on the others and says what is owed", markup=False, soft_wrap=True)  # fmt: skip
    hint(execute=False)


def _print_done(done: Done, *, as_json: bool) -> None:
    erasure = done.erasure
    if as_json:
        found = {"found": _found(done.before), "left": _found(done.left)}
        print_json({"executed": True, "erasure": as_document(erasure), **found, "failures": done.owed})
        return
    rows = sum(holding.rows for holding in done.before.found)
    who = f"{printable(erasure.uid)} of {erasure.tenant}"
    out.print(f"{who}: erased up to {rfc3339(erasure.to_micros // 1_000)}, {rows:,} rows", markup=False, soft_wrap=True)
    for holding in done.left.found:
        out.print(
            f"{holding.cluster}: bucket {holding.bucket.bid} still has {holding.rows:,} rows up to then, and {holding.newer:,} newer",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    for cluster, why in done.owed.items():
        err.print(
            f"still owed on {cluster}: {why}; the erasure stands and nothing it covers is stored again: run the same "
            "command once more when that is mended",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def _found(seen: Survey) -> list[dict[str, Any]]:
    return [asdict(holding) for holding in seen.found]


def _holdings(erasure: Erasure, found: Sequence[Holding]) -> Any:
    until = rfc3339(erasure.to_micros // 1_000)
    rows = (
        (h.cluster, h.bucket.bid, rfc3339(h.bucket.start_ms), rfc3339(h.bucket.end_ms), f"{h.rows:,}", f"{h.newer:,}")
        for h in found
    )
    columns = ("cluster", "bucket#", "from", "to", f"rows up to {until}#", "newer, stay#")
    return table(f"{erasure.uid} of {erasure.tenant}", columns, rows)


def as_document(erasure: Erasure) -> dict[str, Any]:
    return msgspec.structs.asdict(erasure)


def hint(*, execute: bool) -> None:
    if not execute:
        err.print("Nothing was changed; add --execute to do it.")


def known_holders(settings: Settings, registry: Registry) -> list[Tier]:
    """Every cluster that may hold events: of a tier, or written by a replay that is on record."""
    replays = Replays.of(settings).all()
    return holders(registry, [replay.plan for replay in replays])


def _warn_of_unused(registry: Registry, tiers: Sequence[Tier]) -> None:
    for name in unused_clusters(registry, tiers):
        err.print(
            f"cluster {name}: no tier uses it, so its buckets are unknown and it was not looked at; if it may hold the "
            f"user's rows: `eventstore erasures repeat --cluster {name} --as-tier TIER --execute`",
            markup=False, soft_wrap=True,
        )  # fmt: skip
