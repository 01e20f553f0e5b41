"""Marks: where the live group stood at a moment that matters, kept in a compacted topic and not in a store that may be lost.

A backup's mark is made before its snapshot begins, so that snapshot and replay from the mark together cover everything.
"""

import msgspec

from eventstore.config import KafkaSettings
from eventstore.errors import ConfigurationError
from eventstore.stream.table import TopicTable


class Mark(msgspec.Struct, frozen=True):
    name: str
    created_ms: int
    topic: str
    group: str
    """The live group."""
    offsets: dict[int, int]
    """By partition, what it had committed; a partition in which it had committed nothing is left out."""
    partitions: int
    """How many the topic had."""
    cluster: str | None = None
    """Whose snapshot it belongs to; None: of no cluster in particular."""
    snapshot: str | None = None
    """What the cluster calls it; None: there is none, or it was not finished."""


class Marks:
    """The table of all marks. Every method blocks, and raises KafkaError when Kafka cannot or will not answer."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._table = TopicTable(kafka, topic)

    def all(self) -> list[Mark]:
        """Oldest first."""
        found = [self._table.decoded(name, value, Mark) for name, value in self._table.read().items()]
        return sorted(found, key=lambda mark: (mark.created_ms, mark.name))

    def get(self, name: str) -> Mark:
        """Raises ConfigurationError if there is no such mark."""
        value = self._table.read().get(name)
        if value is None:
            raise ConfigurationError(
                f"mark {name}: expected one of {self._table.topic}, found none; see `eventstore marks list`"
            )
        return self._table.decoded(name, value, Mark)

    def put(self, mark: Mark) -> None:
        self._table.put(mark.name, msgspec.json.encode(mark))
