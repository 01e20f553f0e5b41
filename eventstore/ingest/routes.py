"""The registry in force and a connected writer for each of its clusters: they change together."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog

from eventstore import metrics
from eventstore.errors import EventstoreError
from eventstore.store.writer import EventWriter
from eventstore.tenancy import Cluster, Registry, Tier

log = structlog.stdlib.get_logger(__name__)

FIRST_PAUSE: Final = 1.0
LAST_PAUSE: Final = 30.0
"""Seconds between attempts to follow an edit."""

Connect = Callable[[Tier], Awaitable[EventWriter]]
"""A writer to a tier's cluster, whose schema has been found fit for the tier."""


class Routes:
    """Where events go. A registry is followed only once every cluster it uses is connected."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._writers: dict[Cluster, EventWriter] = {}
        self._by_name: dict[str, EventWriter] = {}
        self._registry: Registry | None = None
        self._asked: Registry
        self._edited = asyncio.Event()

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
        used = registry.tiers.values()
        await self._connect_all([tier for tier in used if tier.cluster not in self._writers])
        self._by_name = {tier.cluster.name: self._writers[tier.cluster] for tier in used}
        self._registry = registry

    def ask(self, registry: Registry) -> None:
        """Have `keep_following` follow this registry."""
        self._asked = registry
        self._edited.set()

    async def keep_following(self) -> None:
        """Follow every registry that is asked for. One whose clusters cannot be reached is tried again until they can, or
        another is asked for; meanwhile events take the old routes.
        """
        while True:
            await self._edited.wait()
            pause = FIRST_PAUSE
            while self._edited.is_set():
                self._edited.clear()
                try:
                    await self.follow(self._asked)
                    log.info("routes follow the edited registry", clusters=sorted(self._by_name))
                except EventstoreError as error:
                    metrics.REGISTRY_RELOAD_FAILURES.inc()
                    log.error("registry edit not followed yet, trying again", seconds=pause, error=str(error))  # noqa: TRY400
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._edited.wait(), pause)
                    self._edited.set()
                    pause = min(LAST_PAUSE, pause * 2)

    async def close(self) -> None:
        await asyncio.gather(*(writer.close() for writer in self._writers.values()))

    async def _connect_all(self, tiers: list[Tier]) -> None:
        connected = await asyncio.gather(*map(self._connect, tiers), return_exceptions=True)
        for tier, writer in zip(tiers, connected, strict=True):
            if not isinstance(writer, BaseException):
                self._writers[tier.cluster] = writer
        if error := next((each for each in connected if isinstance(each, BaseException)), None):
            raise error
