"""`eventstore restore`: a backup back into its cluster, or into one that is to take its place."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from eventstore.cli.backup import SCTOOL, backups_of, is_embedded_cluster
from eventstore.cli.console import AsJson, err, out, print_json
from eventstore.cli.erasures import repeat_on
from eventstore.cli.marks import known_cluster, warn_of_gone
from eventstore.config import Settings, load_settings
from eventstore.errors import QueryError, RefusedError, StoreError
from eventstore.registry import load_registry
from eventstore.replay.marks import Mark, MarkTable, increments_before
from eventstore.replay.scope import on_cluster
from eventstore.store.schema import require_schema
from eventstore.store.session import close, connect
from eventstore.tenancy import Registry, Tier


def register(app: typer.Typer) -> None:
    app.command("restore")(restore)


def restore(
    mark_name: Annotated[str, typer.Argument(metavar="MARK", help="A mark with a snapshot.")],
    *,
    into: Annotated[
        str | None,
        typer.Option(metavar="CLUSTER", help="Another cluster than the mark's: one that is to take its place."),
    ] = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Really load it. Without it, only show the steps.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Load a mark's snapshot and its increments into its cluster, which has its schema (embedded stack).

    Users that were erased since are erased before the load, so that nobody reads them even for a moment, and once more
    after it. Rows that are there already stay as they are. What is left to do then, the replay from the mark, is printed.
    For ScyllaDB the steps of ScyllaDB Manager are shown.

    Examples:
    - `eventstore restore es30-20260901T030000Z`
    - `eventstore restore es30-20260901T030000Z --execute`
    - `eventstore restore es30-20260901T030000Z --into es30b --execute`
    """
    settings = load_settings()
    registry = load_registry(settings.registry)
    marks = MarkTable(settings.kafka, settings.topics.marks).read()
    mark = _with_snapshot(marks, mark_name)
    tier = _target(registry, mark, into)
    embedded = is_embedded_cluster(tier.cluster)
    if execute and not embedded:
        raise QueryError(
            f"--execute: expected a cluster of the embedded stack, {tier.cluster.name} is elsewhere; without --execute "
            "this shows the steps of ScyllaDB Manager"
        )
    warn_of_gone(settings, mark)
    loaded = _load(settings, registry, mark, marks, tier) if execute else []
    steps = [_replay_step(mark, tier)] if execute else _steps(mark, tier, embedded=embedded)
    if as_json:
        print_json({"mark": mark.name, "cluster": tier.cluster.name, "loaded": loaded, "next": steps})
        return
    for line in (*(f"loaded {place}" for place in loaded), *steps):
        out.print(line, markup=False, soft_wrap=True)


def _with_snapshot(marks: Sequence[Mark], name: str) -> Mark:
    for mark in marks:
        if mark.name == name and mark.snapshot is not None and mark.cluster is not None:
            return mark
    told = ", ".join(each.name for each in marks if each.snapshot) or "none"
    raise QueryError(f"mark: expected one with a snapshot ({told}), got {name!r}; see `eventstore marks list`")


def _target(registry: Registry, mark: Mark, into: str | None) -> Tier:
    """The tier whose events the snapshot holds, on the cluster that is to have them."""
    source = mark.cluster or ""
    known_cluster(registry, source)
    tier = registry.tier_of(source)
    assert tier is not None  # noqa: S101 — `known_cluster` has seen to that
    if into is None:
        return tier
    target = on_cluster(registry, tier, into, "--into")
    if target.cluster.keyspace != tier.cluster.keyspace:
        raise RefusedError(
            f"--into {into}: expected keyspace {tier.cluster.keyspace}, as the snapshot of {source} has it, the registry says "
            f"{target.cluster.keyspace}: table files are loaded under the name they were taken under; change the registry"
        )
    return target


def _steps(mark: Mark, tier: Tier, *, embedded: bool) -> list[str]:
    """Everything that is to be done on an empty cluster, in this order."""
    into = _into(mark, tier)
    of = f"--cluster {tier.cluster.name}{f' --as-tier {tier.name}' if into else ''}"
    erase = f"eventstore erasures repeat {of} --execute"
    load = (
        [f"eventstore restore {mark.name}{into} --execute"]
        if embedded
        else [f"{erase}   # before: nobody reads them even for a moment", *_sctool_steps(mark, tier), erase]
    )
    return [f"eventstore schema apply {of}", *load, _replay_step(mark, tier)]


def _sctool_steps(mark: Mark, tier: Tier) -> list[str]:
    """A task of ScyllaDB Manager makes many snapshots, and the mark knows the task at most: its time must choose one."""
    name, where, keyspace = tier.cluster.name, ["--location", "LOCATION"], ["--keyspace", tier.cluster.keyspace]
    earliest = f"sm_{datetime.fromtimestamp(mark.created_ms / 1_000, UTC):%Y%m%d%H%M%S}UTC"
    # the cluster that is lost answers nothing, and its successor is another one to ScyllaDB Manager
    found = shlex.join([SCTOOL, "backup", "list", "--cluster", name, "--all-clusters", *where])
    load = ["restore", "--cluster", name, *where, "--snapshot-tag", "TAG", *keyspace, "--restore-tables"]
    return [
        f"{found}   # TAG: one of {mark.cluster}, {earliest} or later, never earlier",
        shlex.join([SCTOOL, *load]),
        f"{shlex.join([SCTOOL, 'progress', '--cluster', name, 'restore/TASK'])}   # wait for its end",
        shlex.join([SCTOOL, "repair", "--cluster", name, *keyspace]),
    ]


def _replay_step(mark: Mark, tier: Tier) -> str:
    into = _into(mark, tier)
    meant = f"--tier {tier.name}{into}" if into else f"--cluster {tier.cluster.name}"
    return f"eventstore replay run --from-mark {mark.name} {meant} --execute"


def _into(mark: Mark, tier: Tier) -> str:
    return "" if tier.cluster.name == mark.cluster else f" --into {tier.cluster.name}"


def _load(settings: Settings, registry: Registry, mark: Mark, marks: Sequence[Mark], tier: Tier) -> list[str]:
    source, target = (backups_of(settings, registry, name) for name in (mark.cluster or "", tier.cluster.name))
    snapshot = mark.snapshot or ""
    places = [source.snapshot_place(snapshot), *source.increments(snapshot, increments_before(mark, marks))]
    _require_table(settings, tier)
    _repeat_erasures(settings, tier, "nothing was loaded")
    for place in places:
        with err.status(f"loading {place}"):
            target.load(place)
    _repeat_erasures(settings, tier, "everything was loaded")
    return list(map(str, places))


def _require_table(settings: Settings, tier: Tier) -> None:
    session = connect(tier.cluster, request_timeout=settings.writer.request_timeout)
    try:
        require_schema(session, tier)
    finally:
        close(session)


def _repeat_erasures(settings: Settings, tier: Tier, so_far: str) -> None:
    if failures := repeat_on(settings, [tier], execute=True).failures:
        raise StoreError(f"erasures: {'; '.join(failures.values())}; {so_far}; mend that, then restore again")
