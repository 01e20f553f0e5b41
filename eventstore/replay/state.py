"""Replays and what became of them, in a compacted topic: whoever can reach Kafka can go on with one."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, Protocol, Self, TypeVar

import msgspec

from eventstore.config import Settings
from eventstore.errors import ConfigurationError, RefusedError
from eventstore.replay.plan import Plan, running_into
from eventstore.replay.ranges import refuse
from eventstore.stream.table import TopicTable

KEPT_MS: Final = 30 * 24 * 3_600_000
"""How long a replay that has ended is remembered."""


class Status(StrEnum):
    RUNNING = "running"
    """Or meant to: whether somebody works on it, its group's members tell."""
    PAUSED = "paused"
    CANCELLED = "cancelled"
    DONE = "done"


_MAY_BECOME: Final = {
    Status.RUNNING: frozenset(Status),
    # finished by a process that had not heard of the pause yet
    Status.PAUSED: frozenset(Status),
    Status.CANCELLED: frozenset({Status.CANCELLED}),
    Status.DONE: frozenset({Status.DONE}),
}


class Replay(msgspec.Struct, frozen=True):
    plan: Plan
    status: Status
    changed_ms: int

    @property
    def ended(self) -> bool:
        return self.status in (Status.CANCELLED, Status.DONE)

    def become(self, status: Status, now_ms: int) -> "Replay":
        """The same with another status.

        Raises:
            RefusedError: it has ended.
        """
        if status not in _MAY_BECOME[self.status]:
            raise RefusedError(
                f"replay {self.plan.id}: expected one that has not ended, it is {self.status.value}; "
                "plan a new one with `eventstore replay plan`"
            )
        return msgspec.structs.replace(self, status=status, changed_ms=now_ms)


T = TypeVar("T")


class Table(Protocol):
    """Values by key (`TopicTable` keeps them)."""

    topic: str

    def read(self) -> dict[str, bytes]: ...

    def put(self, key: str, value: bytes | None) -> None: ...

    def decoded(self, key: str, value: bytes, kind: type[T]) -> T: ...


class Replays:
    """The table of all replays. Every method blocks, and raises KafkaError when Kafka cannot or will not answer."""

    def __init__(self, table: Table) -> None:
        self.table = table

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(TopicTable(settings.kafka, settings.topics.replays))

    def all(self) -> list[Replay]:
        """Oldest first."""
        found = [self.table.decoded(key, value, Replay) for key, value in self.table.read().items()]
        return sorted(found, key=lambda replay: (replay.plan.created_ms, replay.plan.id))

    def get(self, replay_id: str) -> Replay:
        """Raises ConfigurationError if there is no such replay."""
        value = self.table.read().get(replay_id)
        if value is None:
            raise ConfigurationError(
                f"replay {replay_id}: expected one of {self.table.topic}, found none; see `eventstore replay status`"
            )
        return self.table.decoded(replay_id, value, Replay)

    def begin(self, replay: Replay, *, beside_others: bool) -> None:
        """Put a new replay on record.

        Raises:
            RefusedError: another one does part of the same, and nobody asked for that; this one is not on record.
        """
        self._put(replay)
        if beside_others:
            return
        # whoever looked before this one was on record is on record itself by now: of two at once, one gives way at least
        if conflicts := list(running_into(replay.plan, self.running())):
            self.table.put(replay.plan.id, None)
            refuse(conflicts)

    def running(self) -> list[Plan]:
        """Plans of those that have not ended."""
        return [replay.plan for replay in self.all() if not replay.ended]

    def become(self, replay_id: str, status: Status, now_ms: int) -> Replay:
        """Give a replay another status, by what others have noted up to now.

        Raises:
            RefusedError: it has ended.
            ConfigurationError: there is no such replay.
        """
        changed = self.get(replay_id).become(status, now_ms)
        self._put(changed)
        return changed

    def _put(self, replay: Replay) -> None:
        self.table.put(replay.plan.id, msgspec.json.encode(replay))

    def forget_old(self, now_ms: int) -> None:
        """Delete what ended long ago."""
        for replay in forgettable(self.all(), now_ms):
            self.table.put(replay.plan.id, None)


def forgettable(replays: list[Replay], now_ms: int) -> Iterator[Replay]:
    return (replay for replay in replays if replay.ended and now_ms - replay.changed_ms > KEPT_MS)
