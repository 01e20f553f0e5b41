"""Chunks, the units of the ledger: consecutive records of one partition out of one fetch. Hauls: chunks worked on together."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import chain
from typing import Any

from confluent_kafka import Message as Record

from eventstore.stream.ledger import Entry, Ledger

__all__ = ["Chunk", "Haul", "Member", "Record", "Records", "State"]


class Records(ABC):
    """What the pipeline works on."""

    __slots__ = ("messages",)

    def __init__(self, messages: Sequence[Record]) -> None:
        self.messages = messages

    def __len__(self) -> int:
        return len(self.messages)

    @property
    @abstractmethod
    def published_ms(self) -> int:
        """Kafka's timestamp of the oldest of them, in ms since the epoch; negative if Kafka has none."""

    def keys(self) -> list[Any]:
        """Each record's key: bytes or None."""
        return list(map(Record.key, self.messages))

    def values(self) -> list[Any]:
        """Each record's value: bytes or None."""
        return list(map(Record.value, self.messages))

    def records(self) -> Iterator[tuple[Record, Any, Any]]:
        """Each record with its key and its value."""
        return zip(self.messages, self.keys(), self.values(), strict=True)


class State(Enum):
    WAITING = "waiting"
    """Nobody has started on it: it can still be dropped."""
    CLAIMED = "claimed"
    FINISHED = "finished"
    DROPPED = "dropped"
    """Its partition was taken away first; another member gets its records."""


class Chunk(Records):
    """Records and their place in the ledger. `claim` before working on it, `finish` when nothing can be lost any more."""

    __slots__ = ("entry", "ledger", "member", "partition", "size", "state", "topic")

    def __init__(self, topic: str, partition: int, messages: Sequence[Record], size: int, member: "Member") -> None:
        super().__init__(messages)
        self.topic = topic
        self.partition = partition
        self.size = size
        """Bytes it holds in memory, about."""
        self.member = member
        self.state = State.WAITING
        self.ledger: Ledger
        self.entry: Entry

    def __repr__(self) -> str:
        return f"<Chunk {self.topic}/{self.partition} {self.first}-{self.last} {self.state.value}>"

    @property
    def first(self) -> int:
        offset: int = self.messages[0].offset()
        return offset

    @property
    def last(self) -> int:
        offset: int = self.messages[-1].offset()
        return offset

    @property
    def published_ms(self) -> int:
        published: int = self.messages[0].timestamp()[1]  # dear: of the first only
        return published

    def claim(self) -> bool:
        """Start working on it; False if it was dropped and must be left alone."""
        if self.state is not State.WAITING:
            return False
        self.state = State.CLAIMED
        return True

    def haul(self) -> "Haul | None":
        """Claim it and those that wait behind it, whatever their topic; None if nothing of that is the member's any more."""
        return self.member.haul(self)

    def finish(self) -> None:
        """Every record is stored, expired, or dead-lettered: the ledger may move on."""
        self.member.finish(self)


class Haul(Records):
    """Claimed chunks that are worked on together. Fresh ones hold a few records each, and what a piece of work costs beside
    its records (tasks, metrics, a system call a node) is paid once for all of them.
    """

    __slots__ = ("chunks",)

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        super().__init__(chunks[0].messages if len(chunks) == 1 else list(chain(*(chunk.messages for chunk in chunks))))
        self.chunks = chunks

    @property
    def published_ms(self) -> int:
        return min(chunk.published_ms for chunk in self.chunks)

    def finish(self) -> None:
        """The same as for each of its chunks."""
        for chunk in self.chunks:
            chunk.finish()


class Member:
    """What a chunk needs of the group member that handed it out."""

    def haul(self, chunk: Chunk) -> Haul | None:
        raise NotImplementedError

    def finish(self, chunk: Chunk) -> None:
        raise NotImplementedError
