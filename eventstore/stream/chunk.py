"""A chunk: consecutive records of one partition out of one fetch, the unit of work of the whole ingest path."""

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from confluent_kafka import Message as Record

from eventstore.stream.ledger import Entry, Ledger

__all__ = ["Chunk", "Member", "Record", "State"]


class State(Enum):
    WAITING = "waiting"
    """Nobody has started on it: it can still be dropped."""
    CLAIMED = "claimed"
    FINISHED = "finished"
    DROPPED = "dropped"
    """Its partition was taken away first; another member gets its records."""


class Chunk:
    """Records and their place in the ledger. `claim` before working on it, `finish` when nothing can be lost any more."""

    __slots__ = ("entry", "ledger", "member", "messages", "partition", "size", "state", "topic")

    def __init__(self, topic: str, partition: int, messages: Sequence[Record], size: int, member: "Member") -> None:
        self.topic = topic
        self.partition = partition
        self.messages = messages
        self.size = size
        """Bytes it holds in memory, about."""
        self.member = member
        self.state = State.WAITING
        self.ledger: Ledger
        self.entry: Entry

    def __len__(self) -> int:
        return len(self.messages)

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

    def keys(self) -> list[Any]:
        """Each record's key: bytes or None."""
        return list(map(Record.key, self.messages))

    def values(self) -> list[Any]:
        """Each record's value: bytes or None."""
        return list(map(Record.value, self.messages))

    def records(self) -> Iterator[tuple[Record, Any, Any]]:
        """Each record with its key and its value."""
        return zip(self.messages, self.keys(), self.values(), strict=True)

    def claim(self) -> bool:
        """Start working on it; False if it was dropped and must be left alone."""
        if self.state is not State.WAITING:
            return False
        self.state = State.CLAIMED
        return True

    def finish(self) -> None:
        """Every record is stored, expired, or dead-lettered: the ledger may move on."""
        self.member.finish(self)


class Member:
    """What a chunk needs of the group member that handed it out."""

    def finish(self, chunk: Chunk) -> None:
        raise NotImplementedError
