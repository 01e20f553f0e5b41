"""One writer a cluster, connected before the first row needs it."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from eventstore.store.writer import EventWriter
from eventstore.tenancy import Cluster, Registry

log = structlog.stdlib.get_logger(__name__)

Connect = Callable[[Cluster], Awaitable[EventWriter]]


class Writers:
    """The writers of all clusters that hold a tier."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._writers: dict[Cluster, EventWriter] = {}
        self._by_name: dict[str, EventWriter] = {}

    def __getitem__(self, cluster: str) -> EventWriter:
        return self._by_name[cluster]

    async def prepare(self, registry: Registry) -> None:
        """Connect to every cluster that the registry uses and we have no writer for.

        A cluster whose address or credentials changed gets a new writer; rows on their way keep the old one, which is
        closed at the end with all others.

        Raises:
            StoreError, ConfigurationError: of the first cluster that cannot be reached; none is taken into use then.
        """
        used = [tier.cluster for tier in registry.tiers.values()]
        missing = [cluster for cluster in used if cluster not in self._writers]
        connected = await asyncio.gather(*map(self._connect, missing), return_exceptions=True)
        self._writers |= {
            cluster: writer
            for cluster, writer in zip(missing, connected, strict=True)
            if not isinstance(writer, BaseException)
        }
        if error := next((e for e in connected if isinstance(e, BaseException)), None):
            raise error
        self._by_name = {cluster.name: self._writers[cluster] for cluster in used}

    async def close(self) -> None:
        await asyncio.gather(*(writer.close() for writer in self._writers.values()))
