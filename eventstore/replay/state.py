"""Replays and what became of them, in a compacted topic: whoever can reach Kafka can go on with one."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import msgspec

from eventstore.config import KafkaSettings
from eventstore.errors import ConfigurationError, RefusedError
from eventstore.replay.plan import Plan
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


class Replays:
    """The table of all replays. Every method blocks, and raises KafkaError when Kafka cannot or will not answer."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self.table = TopicTable(kafka, topic)

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

    def put(self, replay: Replay) -> None:
        self.table.put(replay.plan.id, msgspec.json.encode(replay))

    def forget_old(self, now_ms: int) -> None:
        """Delete what ended long ago."""
        for replay in forgettable(self.all(), now_ms):
            self.table.put(replay.plan.id, None)


def forgettable(replays: list[Replay], now_ms: int) -> Iterator[Replay]:
    return (replay for replay in replays if replay.ended and now_ms - replay.changed_ms > KEPT_MS)
