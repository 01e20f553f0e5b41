"""One node's lanes: one, or one for each shard; each is connected again when it is lost."""

import asyncio
import errno
import random
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import structlog
from cassandra.protocol_features import ProtocolFeatures

from eventstore.errors import EventstoreError, PermanentStoreError, StoreError, TransientStoreError
from eventstore.events.cells import TableName
from eventstore.store.failures import store_error
from eventstore.store.lane import handshake
from eventstore.store.lane.line import Limits, Line
from eventstore.tenancy import Cluster

log = structlog.stdlib.get_logger(__name__)

FIRST_PAUSE: Final = 0.1
LAST_PAUSE: Final = 2.0
"""Seconds between attempts to connect, with jitter. The pause starts anew once a connection has lasted a while."""
LASTED: Final = 10.0
SHARD_PORTS: Final = range(49_152, 65_535)
"""A source port of this range, modulo the number of shards, names the shard at ScyllaDB's shard-aware port."""
PORT_TRIES: Final = 20
_PORT_TAKEN: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})


L = TypeVar("L", bound=Line)
"""The kind of lanes: what they carry."""


@dataclass(frozen=True, slots=True)
class Terms(Generic[L]):
    """How lanes of one cluster connect and behave."""

    kind: type[L]
    cluster: Cluster
    tls: ssl.SSLContext | None
    limits: Limits


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of what nodes say beside answers, and of our own faults."""

    learn: Callable[[TableName, bytes], None]
    crashed: Callable[[Exception], None]


class Node(Generic[L]):
    """A node of the cluster: keeps a lane to it, or to each of its shards, from `start` or `open` to `close`."""

    def __init__(self, address: str, port: int, terms: Terms[L], listener: Listener) -> None:
        self.address = address
        self.port = port
        self.shards = 1
        self.trouble: StoreError | None = None
        """Why the last attempt to connect failed; None when it did not."""
        self._terms = terms
        self._listener = listener
        self._lanes: dict[int, L] = {}
        self._features = ProtocolFeatures()
        self._pause = FIRST_PAUSE
        self._connecting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def lanes(self) -> list[L]:
        return list(self._lanes.values())

    def lane(self, shard: int) -> L | None:
        """The lane of a shard, else the idlest of the node: it forwards between its shards. None: not connected."""
        found = self._lanes.get(shard)
        return found if found is not None else min(self._lanes.values(), key=_load, default=None)

    def lane_of(self, token: int) -> L | None:
        """The lane of the shard that holds a token."""
        sharding = self._features.sharding_info
        return self.lane(sharding.shard_id_from_token(token) if sharding is not None else 0)

    async def open(self) -> None:
        """Connect the first lane; whatever is missing then, this one included, is connected in the background.

        Raises:
            StoreError: it cannot be reached, refuses us, or has no such table.
            ConfigurationError: the password is not where the registry says.
        """
        try:
            await self._connect(None)
        finally:
            self.start()

    def start(self) -> None:
        """Connect in the background what is not connected."""
        if self._connecting is None and not self._closed:
            self._connecting = self._in_background(self._connect_missing())
            self._connecting.add_done_callback(self._connected)

    async def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for lane in self.lanes:
            lane.close(TransientStoreError(f"cluster {self._terms.cluster.name}: its connections are being closed"))

    # -------------------------------------------------------------------------------------------- what lanes tell us

    def lost(self, lane: Line, error: StoreError) -> None:
        shard = next((shard for shard, mine in self._lanes.items() if mine is lane), None)
        if shard is None:  # it was lost during its handshake
            return
        del self._lanes[shard]
        if not self._closed:
            log.warning("lane lost, connecting again", node=lane.node, shard=shard, error=str(error))
            self.trouble = error
            if asyncio.get_running_loop().time() - lane.born > LASTED:
                self._pause = FIRST_PAUSE
            self.start()

    def unprepared(self, lane: Line) -> None:
        self._in_background(self._prepare_again(lane))

    def learn(self, table: TableName, tablet: bytes) -> None:
        self._listener.learn(table, tablet)

    def crashed(self, bug: Exception) -> None:
        self._listener.crashed(bug)

    # ---------------------------------------------------------------------------------------------------- connecting

    async def _connect_missing(self) -> None:
        """One connection after the other, so that a node that comes back is not run over."""
        while missing := [shard for shard in range(self.shards) if shard not in self._lanes]:
            if self.trouble is not None:
                await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
                self._pause = min(LAST_PAUSE, self._pause * 2)
            try:
                await self._connect(random.choice(missing))
            except EventstoreError as error:
                log.warning(
                    "lane not connected, trying again", node=self.address, seconds=self._pause, error=str(error)
                )

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        if task.cancelled():
            return
        if isinstance(bug := task.exception(), Exception):
            self._listener.crashed(bug)
        elif len(self._lanes) < self.shards:  # one was lost just now
            self.start()

    async def _connect(self, shard: int | None) -> None:
        """One more lane, wanted for `shard`; without a shard-aware port the node chooses which one it is."""
        name = self._terms.cluster.name
        try:
            lane = await self._shake_hands(shard)
        except EventstoreError as error:
            # a password that is gone, say: said by `write`, and a reason to pause like any other
            self.trouble = error if isinstance(error, StoreError) else PermanentStoreError(str(error))
            raise
        except Exception as exc:
            self.trouble = store_error(exc, name)
            raise self.trouble from exc
        self._features = lane.features
        sharding = self._features.sharding_info
        self.shards = sharding.shards_count if sharding is not None else 1
        reached = self._features.shard_id if sharding is not None else 0
        if reached in self._lanes:
            self.trouble = TransientStoreError(f"cluster {name}: {lane.node} gave shard {reached} once more")
            lane.close(self.trouble)
            return
        self._lanes[reached] = lane
        self.trouble = None
        log.info("lane connected", cluster=name, node=lane.node, shard=reached)

    async def _shake_hands(self, shard: int | None) -> L:
        cluster, timeout = self._terms.cluster, self._terms.limits.timeout
        lane: L | None = None
        try:
            async with asyncio.timeout(timeout):
                lane = await self._dial(shard)
                await handshake.start(lane, cluster, await handshake.greet(lane))
                await handshake.prepare(lane, cluster.keyspace)
                lane.check_open()  # lost with its last answer, it would be told of to nobody
        except BaseException as exc:
            if lane is not None:
                lane.close(TransientStoreError(f"cluster {cluster.name}: {lane.node} did not come to terms with us"))
            if isinstance(exc, TimeoutError):
                raise TimeoutError(f"{self.address}:{self.port} was not ready within {timeout:g} s") from exc
            raise
        return lane

    async def _dial(self, shard: int | None) -> L:
        """A connection; to the shard itself if the node has a port for that."""
        sharding = self._features.sharding_info
        port = sharding and (sharding.shard_aware_port_ssl if self._terms.tls else sharding.shard_aware_port)
        if shard is not None and port:
            any_address = "::" if ":" in self.address else "0.0.0.0"  # noqa: S104 — a source, not something that listens
            for _ in range(PORT_TRIES):
                source = random.randrange(SHARD_PORTS.start // self.shards + 1, SHARD_PORTS.stop // self.shards)
                try:
                    return await self._dialled(port, local_addr=(any_address, source * self.shards + shard))
                except OSError as failure:
                    if failure.errno not in _PORT_TAKEN:
                        break  # a firewall may let only the ordinary port through
        return await self._dialled(self.port)

    async def _dialled(self, port: int, **options: Any) -> L:
        terms = self._terms
        if terms.tls is not None:
            options |= {"ssl": terms.tls, "server_hostname": self.address}
        transport, lane = await asyncio.get_running_loop().create_connection(
            lambda: terms.kind(terms.cluster.name, f"{self.address}:{self.port}", terms.limits, self),
            self.address,
            port,
            **options,
        )
        # The event loops set TCP_NODELAY. A peer that vanished while nothing was on its way is found by the kernel.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return lane

    async def _prepare_again(self, lane: Line) -> None:
        timeout = self._terms.limits.timeout
        try:
            async with asyncio.timeout(timeout):
                await handshake.prepare(lane, self._terms.cluster.keyspace)
        except TimeoutError:
            lane.close(store_error(TimeoutError(f"{lane.node}: not prepared within {timeout:g} s"), lane.cluster))
        except Exception as exc:  # noqa: BLE001 — mapped; what is permanent ends the call, a write's with its worker
            lane.close(store_error(exc, lane.cluster))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _load(lane: Line) -> int:
    return lane.load
