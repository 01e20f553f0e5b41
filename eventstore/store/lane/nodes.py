"""All nodes of one cluster's datacenter and the lanes to them. The driver's session tells which nodes there are."""

import asyncio
from typing import Final, Generic
from uuid import UUID

import structlog
from cassandra.cluster import Session
from cassandra.pool import Host

from eventstore.errors import StoreError, TransientStoreError
from eventstore.store.failures import mapped
from eventstore.store.lane.line import Limits
from eventstore.store.lane.node import L, Listener, Node, Terms
from eventstore.store.lane.router import Router
from eventstore.store.session import close, tls_context
from eventstore.tenancy import Cluster

log = structlog.stdlib.get_logger(__name__)

LOOKS_PER_TIMEOUT: Final = 10
"""How finely deadlines are kept: one timer for all that is on its way, not one each. It looks for nodes as well."""


class Nodes(Generic[L]):
    """Connected from `open` to `close`; nodes that come and go are followed."""

    def __init__(self, kind: type[L], cluster: Cluster, session: Session, limits: Limits) -> None:
        self._cluster = cluster
        self._session = session
        self._timeout = limits.timeout
        self._terms = Terms(kind, cluster, tls_context(cluster), limits)
        self.router = Router(session.cluster.metadata, cluster.keyspace)
        self.by_host: dict[UUID, Node[L]] = {}
        self.bug: Exception | None = None
        """A fault of ours that lanes have met."""
        self._leaving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._next_look: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, kind: type[L], cluster: Cluster, session: Session, limits: Limits) -> "Nodes[L]":
        """Connect lanes of a kind to the nodes of the cluster's datacenter.

        Args:
            kind: what the lanes carry.
            cluster: whom to connect to; its keyspace and tables are there.
            session: from `connect(cluster)`; closed with the lanes, or if this fails.
            limits: of each lane.

        Raises:
            ConfigurationError: a password or TLS file is not where the registry says.
            StoreError: no node can be reached, or one refuses us or has no such table.
        """
        nodes = cls(kind, cluster, session, limits)
        try:
            await nodes._open_first()
        except BaseException:
            await nodes.close()
            raise
        return nodes

    @property
    def cluster(self) -> str:
        return self._cluster.name

    @property
    def lanes(self) -> list[L]:
        return [lane for node in self.by_host.values() for lane in node.lanes]

    def unreachable(self) -> StoreError:
        """Why no node is connected; one that refuses us counts more than those that are away."""
        troubles = [node.trouble for node in self.by_host.values() if node.trouble is not None]
        told = "; ".join(sorted({str(trouble) for trouble in troubles})) or "the driver knows of none"
        refusal = next((trouble for trouble in troubles if not isinstance(trouble, TransientStoreError)), None)
        return refusal or TransientStoreError(
            f"cluster {self.cluster}: no node of datacenter {self._cluster.datacenter} is connected: {told}"
        )

    async def close(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
        await asyncio.gather(*(node.close() for node in self.by_host.values()), *self._leaving)
        await self._loop.run_in_executor(None, close, self._session)

    async def _open_first(self) -> None:
        with mapped(self.cluster):
            hosts = self._hosts()
        for host in hosts.values():
            self.by_host[host.host_id] = self._node(host)
        outcomes = await asyncio.gather(*(node.open() for node in self.by_host.values()), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, TransientStoreError):
                raise outcome
        if not self.lanes:
            raise self.unreachable()
        self._look_after()

    # ------------------------------------------------------------------------------------------------------- topology

    def _hosts(self) -> dict[UUID, Host]:
        """All nodes of the datacenter, those that are down too: they are tried until they are up or leave."""
        known = self._session.cluster.metadata.all_hosts()
        return {host.host_id: host for host in known if host.datacenter == self._cluster.datacenter}

    def _node(self, host: Host) -> Node[L]:
        listener = Listener(self.router.learn, self._crashed)
        return Node(host.endpoint.address, host.endpoint.port, self._terms, listener)

    def _follow_topology(self) -> None:
        """Nodes that came are connected, nodes that left or have another address now are let go."""
        hosts = self._hosts()
        for host_id, node in list(self.by_host.items()):
            endpoint = hosts[host_id].endpoint if host_id in hosts else None
            if endpoint is None or (endpoint.address, endpoint.port) != (node.address, node.port):
                del self.by_host[host_id]
                self.router.forget(host_id)
                leaving = self._loop.create_task(node.close())
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
        for host_id, host in hosts.items():
            if host_id not in self.by_host:
                self.by_host[host_id] = self._node(host)
                self.by_host[host_id].start()

    # ----------------------------------------------------------------------------------------------- time and surprise

    def _look_after(self) -> None:
        """Keep deadlines and topology, again and again. The driver's listeners do not hear of every node that leaves."""
        self._next_look = self._loop.call_later(self._timeout / LOOKS_PER_TIMEOUT, self._look_after)
        now = self._loop.time()
        try:
            for lane in self.lanes:
                lane.expire(now)
            self._follow_topology()
        except Exception as bug:  # noqa: BLE001 — an event loop would only log it
            self._crashed(bug)

    def _crashed(self, bug: Exception) -> None:
        log.error("fault on a lane", cluster=self.cluster, exc_info=bug)
        self.bug = bug
        for lane in self.lanes:
            lane.crash(bug)
