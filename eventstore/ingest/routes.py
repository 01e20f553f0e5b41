"""The registry in force and a connected writer for each of its clusters: they change together."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from eventstore.errors import EventstoreError
from eventstore.store.writer import EventWriter
from eventstore.tenancy import Cluster, Registry, Tier

log = structlog.stdlib.get_logger(__name__)

Connect = Callable[[Tier], Awaitable[EventWriter]]
"""A writer to a tier's cluster, whose schema has been found fit for the tier."""


class Routes:
    """Where events go. A registry is followed only once every cluster it uses is connected."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._writers: dict[Cluster, EventWriter] = {}
        self._by_name: dict[str, EventWriter] = {}
        self._registry: Registry | None = None
        self._turn = asyncio.Lock()

    @property
    def registry(self) -> Registry:
        if self._registry is None:
            raise RuntimeError("expected `follow` before the first event")
        return self._registry

    def writer(self, cluster: str) -> EventWriter:
        return self._by_name[cluster]

    async def follow(self, registry: Registry) -> None:
        """Connect to the clusters that are new, then route by this registry.

        A cluster whose address or credentials changed gets a new writer; rows on their way keep the old one, which is
        closed at the end with all others.

        Raises:
            EventstoreError: of a cluster that cannot be reached or used; the routes stay as they were.
        """
        async with self._turn:  # edits in quick succession take effect in their order
            used = registry.tiers.values()
            await self._connect_all([tier for tier in used if tier.cluster not in self._writers])
            self._by_name = {tier.cluster.name: self._writers[tier.cluster] for tier in used}
            self._registry = registry

    async def follow_or_stay(self, registry: Registry) -> None:
        """The same for an edit while running: a cluster that cannot be reached is logged, not raised."""
        try:
            await self.follow(registry)
        except EventstoreError as error:
            log.error("registry edit not followed, events take the old routes", error=str(error))  # noqa: TRY400

    async def close(self) -> None:
        await asyncio.gather(*(writer.close() for writer in self._writers.values()))

    async def _connect_all(self, tiers: list[Tier]) -> None:
        connected = await asyncio.gather(*map(self._connect, tiers), return_exceptions=True)
        for tier, writer in zip(tiers, connected, strict=True):
            if not isinstance(writer, BaseException):
                self._writers[tier.cluster] = writer
        if error := next((each for each in connected if isinstance(each, BaseException)), None):
            raise error
