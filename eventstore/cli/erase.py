"""`eventstore erase` and `eventstore erasures`: a user's past is deleted and stays deleted."""

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
import typer

from eventstore.cli.console import AsJson, err, out, print_json, printable, progress, table
from eventstore.cli.timeline import instant
from eventstore.config import Settings, load_settings
from eventstore.errors import EventstoreError, ExitCode, QueryError, UnknownTenantError
from eventstore.events.erasure import Erasure
from eventstore.events.moment import rfc3339
from eventstore.ingest.admission import ClockRules
from eventstore.registry import load_registry, now_ms
from eventstore.replay.erasure import Holding, Reach, outlived, reach, survey, unused_clusters
from eventstore.store.eraser import delete_partitions
from eventstore.store.reader import EventReaders
from eventstore.stream.erasures import ErasureTable
from eventstore.tenancy import Registry
from eventstore.timeline import TimelineQuery

REQUEST_SECONDS = 30.0
"""Time for one delete that every replica must confirm."""
PARALLEL = 8
"""Clusters at the same time."""

erasures = typer.Typer(name="erasures", help="List, repeat and forget erasures of users.", no_args_is_help=True)

Execute = Annotated[bool, typer.Option("--execute", help="Really do it. Without it, only show what would be done.")]


def register(app: typer.Typer) -> None:
    app.command("erase")(erase)
    app.add_typer(erasures)


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
    events stay and go on being stored. Safe to repeat; exit 1 if a cluster could not delete everything.

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
    with err.status("looking at what is stored"):
        standing = records.find(tenant, uid)
        # never less than what is erased already: a tombstone cannot be taken back
        erasure = asked if standing is None or standing.to_micros < asked.to_micros else standing
        within = reach(registry, now_ms(), _clock(settings))
        before = _survey(settings, erasure, within)
    if tenant not in registry.tenants and not before and standing is None:
        raise UnknownTenantError(
            f"tenant: expected one of the registry, or one with rows of user {uid!r}, got {tenant!r}; check the spelling"
        )
    if not execute:
        _print_plan(erasure, before, as_json=as_json)
        _warn_of_unused(registry)
        return
    with err.status("recording the erasure"):
        records.record(erasure)
    failures = _delete(within, [erasure])
    with err.status("looking at what is left"):
        left = [] if failures else _survey(settings, erasure, within)
    _print_done(erasure, before, left, failures, as_json=as_json)
    _warn_of_unused(registry)
    if failures or any(holding.rows for holding in left):
        raise typer.Exit(ExitCode.FAILED)


@erasures.command("list")
def show(*, as_json: AsJson = False) -> None:
    """List the erasures on record.

    Examples:
    - `eventstore erasures list`
    - `eventstore erasures list --json`
    """
    settings = load_settings()
    with err.status("reading the erasures"):
        found = ErasureTable(settings.kafka, settings.topics.erasures).read()
    if as_json:
        print_json([_json(erasure) for erasure in found])
    else:
        _print(found, f"{len(found):,} erasures")


@erasures.command()
def repeat(
    *,
    cluster: Annotated[
        list[str] | None,
        typer.Option("--cluster", metavar="NAME", help="Only on this cluster; may be repeated. Default: all."),
    ] = None,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Delete again what every erasure on record covers. Run it after every restore: a backup does not know of later erasures.

    Examples:
    - `eventstore erasures repeat`
    - `eventstore erasures repeat --cluster es30 --execute`
    """
    settings = load_settings()
    registry = load_registry(settings.registry)
    if unknown := sorted(set(cluster or ()) - set(registry.clusters)):
        raise QueryError(
            f"--cluster: expected clusters of the registry ({', '.join(registry.clusters)}), got {', '.join(unknown)}"
        )
    within = [e for e in reach(registry, now_ms(), _clock(settings)) if not cluster or e.cluster.name in cluster]
    with err.status("reading the erasures"):
        found = ErasureTable(settings.kafka, settings.topics.erasures).read()
    failures = _delete(within, found) if execute else {}
    partitions = {each.cluster.name: sum(len(each.doomed(erasure)) for erasure in found) for each in within}
    if as_json:
        print_json({"executed": execute, "erasures": len(found), "partitions": partitions, "failures": failures})
    else:
        for name, count in partitions.items():
            done = f"failed: {failures[name]}" if name in failures else "deleted" if execute else "to delete"
            out.print(f"{name}: {count:,} partitions of {len(found):,} users {done}", markup=False, soft_wrap=True)
        _hint(execute=execute)
    if failures:
        raise typer.Exit(ExitCode.FAILED)


@erasures.command()
def prune(*, execute: Execute = False, as_json: AsJson = False) -> None:
    """Forget erasures that no event can reach any more: their moment is older than every tier's retention.

    Such events are expired on arrival anyway, so the record of who was erased has served its purpose.

    Examples:
    - `eventstore erasures prune`
    - `eventstore erasures prune --execute`
    """
    settings = load_settings()
    registry = load_registry(settings.registry)
    records = ErasureTable(settings.kafka, settings.topics.erasures)
    with err.status("reading the erasures"):
        old = outlived(records.read(), registry, now_ms(), _clock(settings))
    if execute:
        with progress() as bars:
            for erasure in bars.track(old, description="forgetting"):
                records.forget(erasure)
    if as_json:
        print_json({"executed": execute, "erasures": [_json(erasure) for erasure in old]})
    else:
        _print(old, f"{len(old):,} erasures {'forgotten' if execute else 'to forget'}")
        _hint(execute=execute)


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


def _clock(settings: Settings) -> ClockRules:
    return ClockRules(settings.worker.max_future, settings.worker.late_after)


def _survey(settings: Settings, erasure: Erasure, within: Sequence[Reach]) -> list[Holding]:
    async def look() -> list[Holding]:
        readers = EventReaders(settings.reader)
        try:
            return await survey(erasure, within, readers)
        finally:
            await readers.close()

    return asyncio.run(look())


def _delete(within: Sequence[Reach], of: Sequence[Erasure]) -> dict[str, str]:
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


def _print_plan(erasure: Erasure, found: Sequence[Holding], *, as_json: bool) -> None:
    if as_json:
        print_json({"executed": False, "erasure": _json(erasure), "found": [asdict(holding) for holding in found]})
        return
    out.print(_holdings(erasure, found))
    _hint(execute=False)


def _print_done(
    erasure: Erasure, before: Sequence[Holding], left: Sequence[Holding], failures: dict[str, str], *, as_json: bool
) -> None:
    if as_json:
        found = {"found": [asdict(h) for h in before], "left": [asdict(h) for h in left]}
        print_json({"executed": True, "erasure": _json(erasure), **found, "failures": failures})
        return
    rows = sum(holding.rows for holding in before)
    who = f"{printable(erasure.uid)} of {erasure.tenant}"
    out.print(f"{who}: erased up to {rfc3339(erasure.to_micros // 1_000)}, {rows:,} rows", markup=False, soft_wrap=True)
    for holding in left:
        out.print(
            f"{holding.cluster}: bucket {holding.bucket.bid} still has {holding.rows:,} rows up to then, and {holding.newer:,} newer",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    for failure in failures.values():
        err.print(f"not deleted: {failure}; the erasure stands, run the same command again", markup=False, soft_wrap=True)  # fmt: skip


def _holdings(erasure: Erasure, found: Sequence[Holding]) -> Any:
    until = rfc3339(erasure.to_micros // 1_000)
    rows = (
        (h.cluster, h.bucket.bid, rfc3339(h.bucket.start_ms), rfc3339(h.bucket.end_ms), f"{h.rows:,}", f"{h.newer:,}")
        for h in found
    )
    columns = ("cluster", "bucket#", "from", "to", f"rows up to {until}#", "newer, stay#")
    return table(f"{erasure.uid} of {erasure.tenant}", columns, rows)


def _print(found: Iterable[Erasure], title: str) -> None:
    rows = ((e.tenant, e.uid, rfc3339(e.to_micros // 1_000), rfc3339(e.recorded_ms)) for e in found)
    out.print(table(title, ("tenant", "user", "erased up to", "recorded"), rows))


def _json(erasure: Erasure) -> dict[str, Any]:
    return msgspec.structs.asdict(erasure)


def _hint(*, execute: bool) -> None:
    if not execute:
        err.print("Nothing was changed; add --execute to do it.")


def _warn_of_unused(registry: Registry) -> None:
    for name in unused_clusters(registry):
        err.print(
            f"cluster {name}: no tier uses it, so its buckets are unknown and it was not looked at; "
            "if it may hold the user's rows, give it its tier again and repeat this",
            markup=False, soft_wrap=True,
        )  # fmt: skip
