"""`eventstore marks`: where the live group stood before a snapshot began."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from eventstore.cli.console import AsJson, err, out, print_json, table
from eventstore.clock import now_ms
from eventstore.config import Settings, load_settings
from eventstore.errors import ConfigurationError
from eventstore.events.moment import rfc3339
from eventstore.registry import load_registry
from eventstore.replay.marks import Mark, MarkTable, check_nothing_waits, records_gone, take_mark
from eventstore.stream.backlogs import Backlogs
from eventstore.stream.offsets import TopicOffsets
from eventstore.tenancy import Registry

marks = typer.Typer(name="marks", help="Backup marks: where to replay from after a restore.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The mark's name.")]


def register(app: typer.Typer) -> None:
    app.add_typer(marks)


@marks.command()
def add(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Default: the cluster and the time.")] = None,
    *,
    cluster: Annotated[str | None, typer.Option(metavar="NAME", help="The cluster that will be backed up.")] = None,
    snapshot: Annotated[
        str | None, typer.Option(metavar="TAG", help="What the snapshot that begins after this will be called.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Mark where the live group stands. Do it BEFORE a snapshot begins; `eventstore backup` does both in that order.

    Restoring the snapshot and replaying from its mark then covers every event, many of them twice, which changes nothing.
    With --cluster it is refused (exit 3) while diverted records wait for that cluster: they lie before the mark and
    would be in no snapshot.

    Examples:
    - `eventstore marks add --cluster es30`
    - `eventstore marks add before-upgrade --cluster es30 --snapshot sm_20260901`
    """
    settings = load_settings()
    registry = load_registry(settings.registry)
    if cluster is not None:
        known_cluster(registry, cluster)
    with err.status("asking where the group stands"):
        mark = safe_mark(settings, cluster, name)
        marked = msgspec.structs.replace(mark, snapshot=snapshot)
        MarkTable(settings.kafka, settings.topics.marks).add(marked)
    print_mark(marked, as_json=as_json)


@marks.command("list")
def list_marks(
    *,
    cluster: Annotated[str | None, typer.Option(metavar="NAME", help="Only this cluster's.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the marks, the oldest first, and whether the topic still holds everything from there on.

    Examples:
    - `eventstore marks list`
    - `eventstore marks list --cluster es30 --json`
    """
    settings = load_settings()
    with err.status("reading the marks"):
        found = MarkTable(settings.kafka, settings.topics.marks).read()
        shown = [mark for mark in found if cluster is None or mark.cluster == cluster]
        gone = gone_since(settings, shown)
    if as_json:
        print_json([msgspec.to_builtins(mark, str_keys=True) | {"gone": gone[mark.name]} for mark in shown])
        return
    rows = (
        (
            mark.name, mark.cluster or "", rfc3339(mark.created_ms), mark.snapshot or "none", mark.topic, mark.partitions,
            _gone(gone[mark.name]),
        )
        for mark in shown
    )  # fmt: skip
    columns = ("mark", "cluster", "time", "snapshot", "topic", "partitions#", "aged out since")
    out.print(table("Marks", columns, rows))


@marks.command()
def show(name: Name, *, as_json: AsJson = False) -> None:
    """Show one mark with its offsets.

    Examples:
    - `eventstore marks show es30-20260901T030000Z`
    - `eventstore marks show before-upgrade --json`
    """
    settings = load_settings()
    with err.status("reading the marks"):
        mark = MarkTable(settings.kafka, settings.topics.marks).find(name)
    print_mark(mark, as_json=as_json)


@marks.command()
def remove(name: Name) -> None:
    """Remove a mark, once its snapshot is gone. Snapshots and events are not touched.

    Examples:
    - `eventstore marks remove es30-20260801T030000Z`
    """
    settings = load_settings()
    table_of_marks = MarkTable(settings.kafka, settings.topics.marks)
    table_of_marks.remove(table_of_marks.find(name))
    out.print(f"removed mark {name}", markup=False)


def safe_mark(settings: Settings, cluster: str | None, name: str | None) -> Mark:
    """Where the live group stands, not kept yet.

    Raises:
        RefusedError: diverted records wait for the cluster that is to be backed up.
        QueryError: a name that no mark can have.
        KafkaError: the brokers cannot or will not answer.
    """
    topics, group = settings.topics, settings.worker.group
    at_ms = now_ms()
    mark = take_mark(
        settings.kafka, name=name or default_name(cluster, at_ms), topic=topics.events, group=group, now_ms=at_ms,
        cluster=cluster,
    )  # fmt: skip
    if cluster is not None:
        check_nothing_waits(mark, Backlogs(settings.kafka, topics, group).read())
    return mark


def default_name(cluster: str | None, at_ms: int) -> str:
    """The cluster and the second: marks of one cluster sort by time."""
    return f"{cluster or 'mark'}-{datetime.fromtimestamp(at_ms / 1_000, UTC):%Y%m%dT%H%M%SZ}"


def known_cluster(registry: Registry, cluster: str) -> None:
    """Raises ConfigurationError unless a tier uses a cluster of this name."""
    if registry.tier_of(cluster) is None:
        used = ", ".join(tier.cluster.name for tier in registry.tiers.values()) or "none"
        raise ConfigurationError(f"--cluster: expected a cluster that a tier uses ({used}), got {cluster!r}")


def gone_since(settings: Settings, marks: Sequence[Mark]) -> dict[str, int | None]:
    """By mark, how many records from there on the topic no longer holds; None: its offsets are of another topic.

    Raises:
        KafkaError: the brokers cannot or will not answer.
    """
    offsets = TopicOffsets(settings.kafka, settings.topics.events)
    if all(mark.topic != offsets.topic for mark in marks):  # it need not even exist
        return dict.fromkeys(mark.name for mark in marks)
    held, same = offsets.held(), (None, offsets.topic_id())
    return {
        mark.name: records_gone(mark, held) if mark.topic == offsets.topic and mark.topic_id in same else None
        for mark in marks
    }


def warn_of_gone(settings: Settings, mark: Mark) -> None:
    """Tell who is about to restore if a replay from the mark cannot bring back everything."""
    gone = gone_since(settings, [mark])[mark.name]
    if gone is None:
        told = f"its offsets are of another topic than {settings.topics.events}; replay --from-timestamp, a little before it"
    else:
        told = f"{gone:,} records since then have aged out of {mark.topic}; restore a newer one, or replay with --accept-gap"
    if gone != 0:
        err.print(f"mark {mark.name}: {told} (see `eventstore marks list`)", markup=False, soft_wrap=True)


def _gone(records: int | None) -> str:
    return "of another topic" if records is None else f"{records:,} records" if records else "nothing"


def print_mark(mark: Mark, *, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(mark, str_keys=True))
        return
    of = f" of {mark.cluster}" if mark.cluster else ""
    out.print(f"mark {mark.name}{of}, {rfc3339(mark.created_ms)}, snapshot: {mark.snapshot or 'none'}", markup=False)
    rows = [*sorted(mark.offsets.items())]
    out.print(table(f"{mark.topic}, group {mark.group}", ("partition#", "replay from offset#"), rows))
