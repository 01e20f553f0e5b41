"""The lane as an `EventWriter`."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final
from uuid import UUID

import structlog
from cassandra.cluster import Session
from cassandra.policies import HostStateListener
from cassandra.pool import Host

from eventstore.errors import StoreError, TransientStoreError
from eventstore.events.row import Batch
from eventstore.store.failures import mapped
from eventstore.store.lane.lane import Lane, Ticket
from eventstore.store.lane.node import Node, Terms
from eventstore.store.lane.router import Router
from eventstore.store.session import close, tls_context
from eventstore.store.writer import Failure
from eventstore.tenancy import Cluster

log = structlog.stdlib.get_logger(__name__)

CHECKS_PER_TIMEOUT: Final = 10
"""How finely deadlines are kept: one timer for all batches of a writer, not one a batch."""


class LaneWriter:
    """Writes to one cluster. The driver's session tells the topology; batches go over lanes of our own."""

    def __init__(self, cluster: Cluster, session: Session, in_flight: int, request_timeout: float) -> None:
        self._cluster = cluster
        self._session = session
        self._timeout = request_timeout
        self._terms = Terms(cluster, tls_context(cluster), request_timeout, in_flight)
        self._router = Router(session.cluster.metadata, cluster.keyspace)
        self._nodes: dict[UUID, Node] = {}
        self._opening: dict[UUID, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.Task[None] | None = None
        self._listener = _Listener(lambda: self._loop.call_soon_threadsafe(self._follow_topology))

    @classmethod
    async def open(cls, cluster: Cluster, session: Session, in_flight: int, request_timeout: float) -> "LaneWriter":
        """Connect to the nodes of the cluster's datacenter.

        Raises:
            StoreError: no node can be reached, or one refuses us or has no such table.
        """
        writer = cls(cluster, session, in_flight, request_timeout)
        try:
            await writer._open_first()
        except BaseException:
            await writer.close()
            raise
        return writer

    @property
    def cluster(self) -> str:
        return self._cluster.name

    @property
    def lanes(self) -> list[Lane]:
        return [lane for node in self._nodes.values() for lane in node.lanes]

    async def write(self, batches: Sequence[Batch]) -> Sequence[Failure]:
        if not batches:
            return ()
        ticket = Ticket(len(batches), self._loop.create_future())
        used = set()
        for batch in batches:
            lane = self._router.pick(batch[0], self._nodes)
            if lane is None:
                ticket.fail(batch, TransientStoreError(f"cluster {self.cluster}: no node is connected"))
                continue
            lane.send(ticket, batch)
            used.add(lane)
        for lane in used:
            lane.flush()
        await ticket.done
        return ticket.failures

    async def close(self) -> None:
        self._session.cluster.unregister_listener(self._listener)
        if self._watch is not None:
            self._watch.cancel()
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        await asyncio.gather(*(node.close() for node in self._nodes.values()))
        await self._loop.run_in_executor(None, close, self._session)

    # ------------------------------------------------------------------------------------------------------- topology

    async def _open_first(self) -> None:
        self._session.cluster.register_listener(self._listener)
        self._watch = self._loop.create_task(self._keep_deadlines())
        hosts = self._hosts()
        outcomes = await asyncio.gather(*(self._open(host) for host in hosts.values()), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, TransientStoreError):
                raise outcome
        if not self._nodes:
            raise next((o for o in outcomes if isinstance(o, StoreError)), self._nobody())

    def _nobody(self) -> StoreError:
        return TransientStoreError(f"cluster {self.cluster}: no node in datacenter {self._cluster.datacenter} is up")

    def _hosts(self) -> dict[UUID, Host]:
        with mapped(self.cluster):
            known = self._session.cluster.metadata.all_hosts()
        return {
            host.host_id: host
            for host in known
            if host.datacenter == self._cluster.datacenter and host.is_up is not False
        }

    async def _open(self, host: Host) -> None:
        node = Node(host.endpoint.address, host.endpoint.port, self._terms, self._router.learn)
        await node.open()
        self._nodes[host.host_id] = node

    def _follow_topology(self) -> None:
        """Nodes that came are connected, nodes that left are let go; one that is only down keeps trying by itself."""
        hosts = self._hosts()
        for host_id, host in hosts.items():
            if host_id not in self._nodes and host_id not in self._opening:
                self._in_background(host_id, self._open_later(host))
        known = {host.host_id for host in self._session.cluster.metadata.all_hosts()}
        for gone in [host_id for host_id in self._nodes if host_id not in known]:
            self._router.forget(gone)
            node = self._nodes.pop(gone)
            self._in_background(gone, node.close())

    def _in_background(self, host_id: UUID, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._opening[host_id] = task

        def forget(_: asyncio.Task[None]) -> None:
            self._opening.pop(host_id, None)

        task.add_done_callback(forget)

    async def _open_later(self, host: Host) -> None:
        delay = 0.1
        while True:
            try:
                return await self._open(host)
            except StoreError as error:
                log.warning("node not connected, trying again", cluster=self.cluster, error=str(error), seconds=delay)
                await asyncio.sleep(delay)
                delay = min(5.0, delay * 2)

    async def _keep_deadlines(self) -> None:
        while True:
            await asyncio.sleep(self._timeout / CHECKS_PER_TIMEOUT)
            now = self._loop.time()
            for lane in self.lanes:
                lane.expire(now, self._timeout)


class _Listener(HostStateListener):  # type: ignore[misc]
    """Hears of the topology on the driver's threads."""

    def __init__(self, changed: Callable[[], Any]) -> None:
        self._changed = changed

    def on_up(self, host: Host) -> None:  # noqa: ARG002 — the driver's signature
        self._changed()

    on_add = on_remove = on_down = on_up
