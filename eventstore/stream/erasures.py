"""The table of erased users: a compacted topic, so that it outlives every store and every backup."""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import msgspec

from eventstore.config import KafkaSettings
from eventstore.events.erasure import Erasure, Erasures
from eventstore.stream.table import TopicTable

if TYPE_CHECKING:
    import asyncio


class Entry(msgspec.Struct, frozen=True):
    """What stands beside a user's Kafka key."""

    to_micros: int
    recorded_ms: int


class ErasureTable:
    """Every method raises TransientKafkaError or PermanentKafkaError: the brokers cannot or will not answer, or an entry
    is of a kind that this version does not know.
    """

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._table = TopicTable(kafka, topic)

    def read(self) -> list[Erasure]:
        """Every erasure on record, by tenant and user. Blocks."""
        recorded: dict[str, list[bytes]] = {}
        for key, value in self._table.changes():
            if value is None:
                recorded.pop(key, None)
            else:
                recorded.setdefault(key, []).append(value)
        # of one user's the longest stands, not the last: two may have been recorded at the same time
        return sorted(max(self._erasure(key, value) for value in values) for key, values in recorded.items())

    def find(self, tenant: str, uid: str) -> Erasure | None:
        return next((each for each in self.read() if (each.tenant, each.uid) == (tenant, uid)), None)

    def record(self, erasure: Erasure) -> Erasure:
        """Have it stand, confirmed by all in-sync replicas: from now on workers leave out what it covers.

        Gives the erasure that stands then: a longer one is never shortened, not even by who did not know of it. Looking
        before recording would not do: two who look at the same time both find nothing.
        """
        self._put(erasure)
        standing = max(erasure, self.find(erasure.tenant, erasure.uid) or erasure)
        if standing.to_micros > erasure.to_micros:
            self._put(standing)  # the last entry is the one that compaction keeps
        return standing

    def forget(self, erasure: Erasure) -> None:
        self._table.put(erasure.key.decode(), None)

    def follow(self, erasures: Erasures) -> AbstractAsyncContextManager["asyncio.Task[None]"]:
        """Keep `erasures` as the table is; entered when all of today's stand in it. See `TopicTable.follow`."""

        def hear(key: str, value: bytes | None) -> None:
            erasures.hear(key.encode(), None if value is None else self._entry(key, value).to_micros)

        return self._table.follow(hear)

    def _put(self, erasure: Erasure) -> None:
        entry = Entry(erasure.to_micros, erasure.recorded_ms)
        self._table.put(erasure.key.decode(), msgspec.json.encode(entry))

    def _erasure(self, key: str, value: bytes) -> Erasure:
        entry = self._entry(key, value)
        tenant, _, uid = key.partition(":")  # a tenant's name has no colon
        return Erasure(tenant, uid, entry.to_micros, entry.recorded_ms)

    def _entry(self, key: str, value: bytes) -> Entry:
        return self._table.decoded(key, value, Entry)
