"""The lane as an `EventWriter`."""

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from cassandra.cluster import Session
from cassandra.pool import Host

from eventstore.errors import StoreError, TransientStoreError
from eventstore.events.cells import Batch
from eventstore.store.failures import mapped
from eventstore.store.lane.lane import Lane, Limits
from eventstore.store.lane.node import Listener, Node, Terms
from eventstore.store.lane.router import Router
from eventstore.store.lane.ticket import Ticket
from eventstore.store.session import close, tls_context
from eventstore.store.writer import Failure
from eventstore.tenancy import Cluster

LOOKS_PER_TIMEOUT: Final = 10
"""How finely deadlines are kept: one timer for all batches of a writer, not one a batch. It looks for nodes as well."""


class LaneWriter:
    """Writes to one cluster. The driver's session tells the topology; batches go over lanes of our own."""

    def __init__(self, cluster: Cluster, session: Session, in_flight: int, request_timeout: float) -> None:
        self._cluster = cluster
        self._session = session
        self._limits = Limits(in_flight, request_timeout)
        self._terms = Terms(cluster, tls_context(cluster), self._limits)
        self._router = Router(session.cluster.metadata, cluster.keyspace)
        self._nodes: dict[UUID, Node] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._next_look: asyncio.TimerHandle | None = None
        self._bug: Exception | None = None

    @classmethod
    async def open(cls, cluster: Cluster, session: Session, in_flight: int, request_timeout: float) -> "LaneWriter":
        """Connect to the nodes of the cluster's datacenter. The writer closes the session at its end, or if this fails.

        Args:
            cluster: where to write; its keyspace and table are there.
            session: from `connect(cluster)`.
            in_flight: most batches on their way to one node, or to one shard of it.
            request_timeout: seconds that a batch may wait to be sent, and again for its answer.

        Raises:
            ConfigurationError: a password or TLS file is not where the registry says.
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
    def acknowledged(self) -> int:
        return sum(lane.acknowledged for lane in self.lanes)

    @property
    def lanes(self) -> list[Lane]:
        return [lane for node in self._nodes.values() for lane in node.lanes]

    async def write(self, batches: Sequence[Batch]) -> Sequence[Failure]:
        if self._bug is not None:
            raise self._bug
        if not batches:
            return ()
        ticket = Ticket(len(batches), self._loop.time(), self._loop.create_future())
        used = set()
        for batch in batches:
            lane = self._router.pick(batch[0], self._nodes)
            if lane is None:
                ticket.fail(batch, self._unreachable())
                continue
            lane.send(ticket, batch)
            used.add(lane)
        for lane in used:
            lane.flush()
        await ticket.done
        return ticket.failures

    async def close(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        await asyncio.gather(*(node.close() for node in self._nodes.values()), *self._leaving)
        await self._loop.run_in_executor(None, close, self._session)

    async def _open_first(self) -> None:
        with mapped(self.cluster):
            hosts = self._hosts()
        for host in hosts.values():
            self._nodes[host.host_id] = self._node(host)
        outcomes = await asyncio.gather(*(node.open() for node in self._nodes.values()), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, TransientStoreError):
                raise outcome
        if not self.lanes:
            raise self._unreachable()
        self._look_after()

    def _unreachable(self) -> StoreError:
        """Why no node is connected; one that refuses us counts more than those that are away."""
        troubles = [node.trouble for node in self._nodes.values() if node.trouble is not None]
        told = "; ".join(sorted({str(trouble) for trouble in troubles})) or "the driver knows of none"
        refusal = next((trouble for trouble in troubles if not isinstance(trouble, TransientStoreError)), None)
        return refusal or TransientStoreError(
            f"cluster {self.cluster}: no node of datacenter {self._cluster.datacenter} is connected: {told}"
        )

    # ------------------------------------------------------------------------------------------------------- topology

    def _hosts(self) -> dict[UUID, Host]:
        """All nodes of the datacenter, those that are down too: they are tried until they are up or leave."""
        known = self._session.cluster.metadata.all_hosts()
        return {host.host_id: host for host in known if host.datacenter == self._cluster.datacenter}

    def _node(self, host: Host) -> Node:
        listener = Listener(self._router.learn, self._crashed)
        return Node(host.endpoint.address, host.endpoint.port, self._terms, listener)

    def _follow_topology(self) -> None:
        """Nodes that came are connected, nodes that left or have another address now are let go."""
        hosts = self._hosts()
        for host_id, node in list(self._nodes.items()):
            endpoint = hosts[host_id].endpoint if host_id in hosts else None
            if endpoint is None or (endpoint.address, endpoint.port) != (node.address, node.port):
                del self._nodes[host_id]
                self._router.forget(host_id)
                leaving = self._loop.create_task(node.close())
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
        for host_id, host in hosts.items():
            if host_id not in self._nodes:
                self._nodes[host_id] = self._node(host)
                self._nodes[host_id].start()

    # ----------------------------------------------------------------------------------------------- time and surprise

    def _look_after(self) -> None:
        """Keep deadlines and topology, again and again. The driver's listeners do not hear of every node that leaves."""
        self._next_look = self._loop.call_later(self._limits.timeout / LOOKS_PER_TIMEOUT, self._look_after)
        now = self._loop.time()
        try:
            for lane in self.lanes:
                lane.expire(now)
            self._follow_topology()
        except Exception as bug:  # noqa: BLE001 — an event loop would only log it
            self._crashed(bug)

    def _crashed(self, bug: Exception) -> None:
        """Nothing is written any more: calls that wait and calls to come raise it, and the worker ends."""
        self._bug = bug
        for lane in self.lanes:
            lane.crash_tickets(bug)
