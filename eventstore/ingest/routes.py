"""The registry in force and an outlet for each of its clusters: they change together."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Final

import structlog

from eventstore import metrics
from eventstore.errors import EventstoreError
from eventstore.ingest.circuit import Circuit, CircuitPolicy, State, Wanted
from eventstore.ingest.outlet import GuardedOutlet
from eventstore.ingest.retry import RetryPolicy
from eventstore.store.writer import EventWriter
from eventstore.tenancy import Cluster, Registry, Tier

log = structlog.stdlib.get_logger(__name__)

FIRST_PAUSE: Final = 1.0
LAST_PAUSE: Final = 30.0
"""Seconds between attempts to follow an edit."""
WATCH_SECONDS: Final = 0.2
"""How finely circuits keep their times."""

Connect = Callable[[Tier], Awaitable[EventWriter]]
"""A writer to a tier's cluster, whose schema has been found fit for the tier."""
Prepare = Callable[[Registry], Awaitable[None]]
"""What must be there before records are routed by a registry."""


async def _nothing(_: Registry) -> None:
    pass


class Routes:
    """Where events go. A registry is followed once every cluster it uses is connected, or away with its circuit open."""

    def __init__(
        self,
        connect: Connect,
        retry: RetryPolicy | None = None,
        circuits: CircuitPolicy | None = None,
        prepare: Prepare = _nothing,
    ) -> None:
        self._connect = connect
        self._retry = retry or RetryPolicy()
        self._circuits = circuits or CircuitPolicy()
        self._prepare = prepare
        self._outlets: dict[Cluster, GuardedOutlet] = {}
        """Those that routes no longer lead to live on until nothing is being written there."""
        self._reserved: frozenset[Cluster] = frozenset()
        """Routes are about to lead there: their outlets stay, used or not."""
        self._closing: set[asyncio.Task[None]] = set()
        self._by_name: dict[str, GuardedOutlet] = {}
        self._wanted: dict[str, Wanted] = {}
        self._registry: Registry | None = None
        self._asked: Registry
        self._edited = asyncio.Event()

    @property
    def registry(self) -> Registry:
        if self._registry is None:
            raise RuntimeError("expected `follow` before the first event")
        return self._registry

    @property
    def states(self) -> Mapping[str, State]:
        """Of the circuit of each cluster in use."""
        return {name: outlet.circuit.state for name, outlet in self._by_name.items()}

    def outlet(self, cluster: str) -> GuardedOutlet:
        return self._by_name[cluster]

    def want(self, cluster: str, wanted: Wanted) -> None:
        """Do as an operator wants with a cluster's circuit, now and after every edit of the registry."""
        self._wanted[cluster] = wanted
        if (outlet := self._by_name.get(cluster)) is not None:
            outlet.want(wanted)

    async def follow(self, registry: Registry) -> None:
        """Connect to the clusters that are new, then route by this registry.

        A cluster whose address or credentials changed gets a new outlet; rows on their way keep the old one.

        Raises:
            EventstoreError: of a cluster that is there and cannot be used as it is; the routes stay as they were.
        """
        used = registry.tiers.values()
        self._reserved = frozenset(tier.cluster for tier in used)
        try:
            await self._prepare(registry)
            await self._open([tier for tier in used if tier.cluster not in self._outlets])
            self._by_name = {tier.cluster.name: self._outlets[tier.cluster] for tier in used}
            self._registry = registry
        finally:
            self._reserved = frozenset()

    def ask(self, registry: Registry) -> None:
        """Have `keep_following` follow this registry."""
        self._asked = registry
        self._edited.set()

    async def keep_following(self) -> None:
        """Follow every registry that is asked for. One with a cluster that cannot be used is tried again until it can, or
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

    async def keep_watch(self) -> None:
        """Have circuits open, probe and close in time, and close outlets that nobody uses any more."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for outlet in self._outlets.values():
                outlet.watch()
                if len(self._outlets) > 1:
                    outlet.make_way()
            self._forget_closed()
            self._close_unused()

    async def close(self) -> None:
        await asyncio.gather(*(outlet.close() for outlet in self._outlets.values()), *self._closing)

    def _close_unused(self) -> None:
        """In the background: to a cluster that is away it takes seconds, and circuits must be watched meanwhile."""
        used = set(self._by_name.values())
        for cluster, outlet in list(self._outlets.items()):
            if outlet not in used and cluster not in self._reserved and outlet.idle:
                del self._outlets[cluster]
                self._closing.add(asyncio.create_task(self._close(outlet)))

    def _forget_closed(self) -> None:
        """Raises what nobody expected of closing."""
        for task in [each for each in self._closing if each.done()]:
            self._closing.remove(task)
            task.result()

    async def _close(self, outlet: GuardedOutlet) -> None:
        await outlet.close()
        if outlet.cluster not in self._by_name:
            metrics.CIRCUIT_STATE.remove(outlet.cluster)
        log.info("writer closed: nothing is routed there any more", cluster=outlet.cluster)

    async def _open(self, tiers: list[Tier]) -> None:
        opened = {tier.cluster: self._new_outlet(tier) for tier in tiers}
        async with AsyncExitStack() as unless_all_connect:
            for outlet in opened.values():
                unless_all_connect.push_async_callback(outlet.close)
            outcomes = await asyncio.gather(*(outlet.connect() for outlet in opened.values()), return_exceptions=True)
            if failure := next((each for each in outcomes if each is not None), None):
                raise failure
            unless_all_connect.pop_all()
        self._outlets |= opened

    def _new_outlet(self, tier: Tier) -> GuardedOutlet:
        async def connect() -> EventWriter:
            return await self._connect(tier)

        name = tier.cluster.name
        outlet = GuardedOutlet(name, connect, Circuit(self._circuits), self._retry)
        outlet.want(self._wanted.get(name, Wanted.AUTO))
        return outlet
