"""One node's lanes: one, or one for each shard; each is connected again when it is lost."""

import asyncio
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from cassandra.protocol_features import ProtocolFeatures

from eventstore.errors import StoreError
from eventstore.store.failures import store_error
from eventstore.store.lane import handshake
from eventstore.store.lane.lane import Lane
from eventstore.tenancy import Cluster

log = structlog.stdlib.get_logger(__name__)

FIRST_RETRY: Final = 0.1
LAST_RETRY: Final = 5.0
SHARD_PORTS: Final = range(49_152, 65_535)
"""A source port of this range, modulo the number of shards, names the shard at ScyllaDB's shard-aware port."""
PORT_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class Terms:
    """How lanes of one cluster connect and behave."""

    cluster: Cluster
    tls: ssl.SSLContext | None
    connect_seconds: float
    most_in_flight: int
    """Batches on their way to one node or shard."""


class Node:
    """A node of the cluster. `open` connects the first lane; the others, and lost ones, are connected in the background."""

    def __init__(self, address: str, port: int, terms: Terms, on_payload: Callable[[bytes], None]) -> None:
        self.address = address
        self.port = port
        self.shards = 1
        self._terms = terms
        self._on_payload = on_payload
        self._lanes: dict[int, Lane] = {}
        self._features = ProtocolFeatures()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def lanes(self) -> list[Lane]:
        return list(self._lanes.values())

    def lane(self, shard: int) -> Lane | None:
        """The lane of a shard, else any of the node that is connected: the node forwards between its shards."""
        found = self._lanes.get(shard)
        return found if found is not None else next(iter(self._lanes.values()), None)

    def lane_of(self, token: int) -> Lane | None:
        """The lane of the shard that holds a token."""
        sharding = self._features.sharding_info
        return self.lane(sharding.shard_id_from_token(token) if sharding is not None else 0)

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreError: it cannot be reached, refuses us, or has no such table.
        """
        try:
            first = await self._connect(None)
        except Exception as exc:
            raise exc if isinstance(exc, StoreError) else store_error(exc, self._terms.cluster.name) from exc
        self._features = first.features
        if self._features.sharding_info is not None:
            self.shards = self._features.sharding_info.shards_count
        self._keep(first, self._features.shard_id)
        for shard in range(self.shards):
            if shard not in self._lanes:
                self._in_background(self._reconnect(shard))

    async def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self.lanes:
            lane.close("the writer is being closed")

    def _keep(self, lane: Lane, shard: int) -> None:
        self._lanes[shard] = lane
        lane.re_prepare = lambda: self._in_background(self._prepare_again(lane))

    async def _connect(self, shard: int | None) -> Lane:
        terms = self._terms
        async with asyncio.timeout(terms.connect_seconds):
            lane = await self._dial(shard)
            try:
                await handshake.start(lane, terms.cluster, await handshake.greet(lane))
                await handshake.prepare(lane, terms.cluster.keyspace)
            except BaseException:
                lane.close("it did not come to terms with us")
                raise
        return lane

    async def _dial(self, shard: int | None) -> Lane:
        """A connection; to the shard itself if the node has a port for that."""
        loop = asyncio.get_running_loop()
        terms = self._terms
        sharding = self._features.sharding_info
        options: dict[str, Any] = {"ssl": terms.tls, "server_hostname": self.address if terms.tls else None}

        def protocol() -> Lane:
            lane = Lane(terms.cluster.name, f"{self.address}:{self.port}", terms.most_in_flight, self._lost)
            lane.on_payload = self._on_payload
            return lane

        port = sharding and (sharding.shard_aware_port_ssl if terms.tls else sharding.shard_aware_port)
        if shard is not None and port:
            any_address = "::" if ":" in self.address else "0.0.0.0"  # noqa: S104 — a source, not something that listens
            for _ in range(PORT_TRIES):
                source = random.randrange(SHARD_PORTS.start // self.shards + 1, SHARD_PORTS.stop // self.shards)
                try:
                    _, lane = await loop.create_connection(
                        protocol, self.address, port, local_addr=(any_address, source * self.shards + shard), **options
                    )
                except OSError as busy:  # that source port is taken: try another
                    failure = busy
                else:
                    return lane
            raise failure
        _, lane = await loop.create_connection(protocol, self.address, self.port, **options)
        return lane

    def _lost(self, lane: Lane) -> None:
        shard = next((shard for shard, mine in self._lanes.items() if mine is lane), None)
        if shard is None:  # it was lost during its handshake
            return
        del self._lanes[shard]
        if not self._closed:
            log.warning("lane lost, connecting again", cluster=lane.cluster, node=lane.node, shard=shard)
            self._in_background(self._reconnect(shard))

    async def _reconnect(self, shard: int) -> None:
        delay = FIRST_RETRY
        while not self._closed:
            try:
                lane = await self._connect(shard)
            except Exception as exc:  # noqa: BLE001 — whatever it is, the next attempt may find it mended
                log.warning("lane not connected, trying again", cluster=self._terms.cluster.name, node=self.address,
                            shard=shard, seconds=delay, error=str(exc) or type(exc).__name__)  # fmt: skip
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(LAST_RETRY, delay * 2)
                continue
            reached = lane.features.shard_id if lane.features.sharding_info is not None else shard
            if reached in self._lanes:  # without a shard-aware port a connection lands on any shard
                lane.close("its shard has a lane already")
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                continue
            self._keep(lane, reached)
            log.info("lane connected", cluster=lane.cluster, node=lane.node, shard=reached)
            if reached == shard:
                return

    async def _prepare_again(self, lane: Lane) -> None:
        try:
            async with asyncio.timeout(self._terms.connect_seconds):
                await handshake.prepare(lane, self._terms.cluster.keyspace)
        except Exception as exc:  # noqa: BLE001 — its batches fail as transient, and the new connection says what is wrong
            lane.close(f"preparing again failed: {exc or type(exc).__name__}")
        else:
            lane.flush()

    def _in_background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
