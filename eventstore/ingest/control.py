"""What operators want of the circuits: a table that every worker follows."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import msgspec

from eventstore.config import KafkaSettings
from eventstore.ingest.circuit import Wanted
from eventstore.stream.table import TopicTable

if TYPE_CHECKING:
    import asyncio


class Order(msgspec.Struct, frozen=True):
    """Stands beside a cluster's name; a cluster without one is left to its circuit."""

    wanted: Wanted
    given_ms: int
    """Milliseconds since the epoch."""


class ControlTable:
    """Every method raises TransientKafkaError or PermanentKafkaError: the brokers cannot or will not answer, or an entry
    is of a kind that this version does not know.
    """

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._table = TopicTable(kafka, topic)

    def read(self) -> dict[str, Order]:
        """Every order in force, by cluster. Blocks."""
        return {key: self._table.decoded(key, value, Order) for key, value in self._table.read().items()}

    def give(self, cluster: str, order: Order) -> None:
        """Have every worker follow the order, confirmed by all in-sync replicas. Blocks."""
        self._table.put(cluster, None if order.wanted is Wanted.AUTO else msgspec.json.encode(order))

    def follow(self, want: Callable[[str, Wanted], None]) -> AbstractAsyncContextManager["asyncio.Task[None]"]:
        """Tell `want` of every order there is and of every change; entered when it has heard today's."""

        def hear(key: str, value: bytes | None) -> None:
            want(key, Wanted.AUTO if value is None else self._table.decoded(key, value, Order).wanted)

        return self._table.follow(hear)
