"""Backup marks: where the live group stood before a snapshot began.

Everything before a mark's offsets was stored when they were read, so the snapshot has it; everything from them on is
replayed. Read the other way round, events stored between the snapshot and the reading would be in neither. Marks
are kept in a compacted topic and not in the store that may be lost.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from eventstore.config import KafkaSettings
from eventstore.errors import QueryError, RefusedError
from eventstore.stream.offsets import Held, TopicOffsets
from eventstore.stream.table import TopicTable

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    created_ms: int
    """Before the offsets were read; milliseconds since the epoch."""
    topic: str
    topic_id: str | None = None
    """Offsets mean nothing in a topic of the same name that was created later; None: of a mark that does not know."""
    group: str
    offsets: dict[int, int]
    """Where to replay from, by partition: every partition that the topic had."""
    cluster: str | None = None
    """Whose snapshot it belongs to; None: of no snapshot, offsets that somebody wanted to be kept."""
    snapshot: str | None = None
    """What the cluster calls the snapshot; None while there is none, or it failed."""

    reset_to: dict[int, int] | None = None
    """Where the group was moved to from here, if it was: by partition that moved."""

    @property
    def partitions(self) -> int:
        return len(self.offsets)


def take_mark(
    kafka: KafkaSettings, *, name: str, topic: str, group: str, now_ms: int, cluster: str | None = None
) -> Mark:
    """A mark of where the group stands. A partition in which it has committed nothing is marked at its first record.

    Raises:
        QueryError: a name that no mark can have.
        KafkaError: the brokers cannot or will not answer.
    """
    if not _NAME.fullmatch(name):
        raise QueryError(
            f"mark: expected a name of 1 to 100 characters A-Z a-z 0-9 . _ -, first a letter or digit, got {name!r}"
        )
    offsets = TopicOffsets(kafka, topic)
    committed = offsets.committed(group)
    stands = {partition: committed.get(partition, there.first) for partition, there in offsets.held().items()}
    return Mark(
        name=name, created_ms=now_ms, topic=topic, topic_id=offsets.topic_id(), group=group, offsets=stands,
        cluster=cluster,
    )  # fmt: skip


class MarkTable:
    """All marks. Every method blocks, and raises KafkaError when the brokers cannot or will not answer."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._table = TopicTable(kafka, topic)

    def read(self) -> list[Mark]:
        """Every mark, the oldest first."""
        marks = (self._table.decoded(name, value, Mark) for name, value in self._table.read().items())
        return sorted(marks, key=lambda mark: (mark.created_ms, mark.name))

    def find(self, name: str) -> Mark:
        """The mark of this name.

        Raises:
            QueryError: there is none.
        """
        marks = self.read()
        for mark in marks:
            if mark.name == name:
                return mark
        raise QueryError(f"mark: expected one of {_names(marks)}, got {name!r}; see `eventstore marks list`")

    def add(self, mark: Mark) -> None:
        """Keep a new mark.

        Raises:
            RefusedError: there is one of that name.
        """
        if any(there.name == mark.name for there in self.read()):
            raise RefusedError(
                f"mark {mark.name}: expected a new name, there is such a mark already; choose another, or first "
                f"`eventstore marks remove {mark.name}`"
            )
        self._put(mark)

    def name_snapshot(self, mark: Mark, snapshot: str) -> Mark:
        """Note that the mark's snapshot is there; gives the mark as it stands now."""
        noted = msgspec.structs.replace(mark, snapshot=snapshot)
        self._put(noted)
        return noted

    def remove(self, mark: Mark) -> None:
        self._table.put(mark.name, None)

    def _put(self, mark: Mark) -> None:
        self._table.put(mark.name, msgspec.json.encode(mark))


def _names(marks: Iterable[Mark]) -> str:
    return ", ".join(mark.name for mark in marks) or "none (there are no marks yet)"


def mark_and_snapshot(marks: MarkTable, mark: Mark, snapshot: Callable[[], str]) -> Mark:
    """Keep the mark, only then take the snapshot, and note what it is called; gives the mark as it stands then.

    A snapshot that fails leaves a mark without one, which says that there is nothing to restore.
    """
    marks.add(mark)
    return marks.name_snapshot(mark, snapshot())


def increments_before(mark: Mark, marks: Iterable[Mark]) -> list[str]:
    """The increments of the mark's snapshot without which a replay from the mark would leave a hole, by name."""
    return [
        each.name
        for each in marks
        if each.snapshot == mark.snapshot and each.name != mark.snapshot and each.created_ms <= mark.created_ms
    ]


def records_gone(mark: Mark, held: Mapping[int, Held]) -> int:
    """How many records from the mark's offsets on the topic no longer holds; `held` is of the mark's topic."""
    return sum(max(0, there.first - mark.offsets.get(partition, 0)) for partition, there in held.items())


def check_nothing_waits(mark: Mark, waiting: Mapping[str, int]) -> None:
    """Records in the retry topic of the cluster lie before the mark and are in no snapshot.

    Args:
        mark: as it was just taken.
        waiting: by cluster, read after the mark was taken: what is diverted later lies behind the mark's offsets.

    Raises:
        RefusedError: some wait for the mark's cluster.
    """
    if count := waiting.get(mark.cluster or "", 0):
        raise RefusedError(
            f"mark {mark.name}: expected nothing to wait for {mark.cluster}, {count:,} diverted records do: they would be "
            "in neither the snapshot nor the replay; wait until they are drained (`eventstore circuits list`), then try again"
        )
