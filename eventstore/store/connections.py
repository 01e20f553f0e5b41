"""One connection a cluster, made when first asked for. A cluster that is away costs its own callers little, and others nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final, Generic, Protocol, TypeVar

from eventstore.errors import EventstoreError
from eventstore.tenancy import Cluster

PAUSE_SECONDS: Final = 1.0
"""Between two attempts to reach the same cluster."""
RECENT_SECONDS: Final = 30.0
"""A failure so young is told at once while the next attempt is under way: a crowd that waits for a cluster known to be away
would take the places of all others."""
GRACE_SECONDS: Final = 60.0
"""Until a connection that is no longer wanted is closed: what is being read over it may end."""


class Connection(Protocol):
    async def close(self) -> None: ...


T = TypeVar("T", bound=Connection)


@dataclass(frozen=True, slots=True)
class _Failure:
    error: EventstoreError
    at: float

    def is_younger(self, seconds: float, now: float) -> bool:
        return now - self.at < seconds


@dataclass(slots=True)
class _Link(Generic[T]):
    made: T | None = None
    attempt: "asyncio.Task[None] | None" = None
    failure: _Failure | None = None


class Connections(Generic[T]):
    """What `connect` makes of a cluster; it raises an EventstoreError if it cannot.

    `clock` gives seconds of a monotonic clock.
    """

    def __init__(self, connect: Callable[[Cluster], Awaitable[T]], clock: Callable[[], float] = monotonic) -> None:
        self._connect = connect
        self._clock = clock
        self._links: dict[Cluster, _Link[T]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    async def of(self, cluster: Cluster) -> T:
        """The cluster's connection. All who ask while it is being made share one attempt.

        Raises:
            EventstoreError: what `connect` raised, now or a moment ago.
        """
        link = self._links.get(cluster)
        if link is None:
            link = self._links[cluster] = _Link()
        if link.made is not None:
            return link.made
        failure, now = link.failure, self._clock()
        if link.attempt is None and not (failure and failure.is_younger(PAUSE_SECONDS, now)):
            link.attempt = asyncio.create_task(self._attempt(cluster, link))
        if failure and failure.is_younger(RECENT_SECONDS if link.attempt else PAUSE_SECONDS, now):
            raise failure.error.with_traceback(None)  # or every raise would lengthen it
        if link.attempt is not None:
            await asyncio.shield(link.attempt)
        return self._outcome(link)

    def retain(self, clusters: Collection[Cluster]) -> None:
        """Let go of all others: they were changed, or removed from the registry. What is open over them may end."""
        for cluster in self._links.keys() - set(clusters):
            leaving = asyncio.create_task(self._let_go(self._links.pop(cluster)))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """End all connections, those still being made included."""
        self._closing.set()
        self.retain(())
        await asyncio.gather(*self._leaving)

    async def _attempt(self, cluster: Cluster, link: _Link[T]) -> None:
        try:
            link.made = await self._connect(cluster)
        except EventstoreError as error:
            link.failure = _Failure(error, self._clock())
        finally:
            link.attempt = None

    async def _let_go(self, link: _Link[T]) -> None:
        if link.attempt is not None:
            await link.attempt
        if link.made is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), GRACE_SECONDS)
            await link.made.close()

    @staticmethod
    def _outcome(link: _Link[T]) -> T:
        if link.made is not None:
            return link.made
        assert link.failure is not None  # noqa: S101 — an attempt ends with one of the two
        raise link.failure.error.with_traceback(None)
