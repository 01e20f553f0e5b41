"""The lane as an `EventWriter`."""

import asyncio
from collections.abc import Sequence

from cassandra.cluster import Session

from eventstore.events.cells import Batch
from eventstore.store.lane.lane import Lane
from eventstore.store.lane.line import Limits
from eventstore.store.lane.nodes import Nodes
from eventstore.store.lane.ticket import Ticket
from eventstore.store.writer import Failure
from eventstore.tenancy import Cluster


class LaneWriter:
    """Writes to one cluster. The driver's session tells the topology; batches go over lanes of our own."""

    def __init__(self, nodes: Nodes[Lane]) -> None:
        self.nodes = nodes
        self._loop = asyncio.get_running_loop()

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
        return cls(await Nodes.open(Lane, cluster, session, Limits(request_timeout, in_flight)))

    @property
    def cluster(self) -> str:
        return self.nodes.cluster

    @property
    def acknowledged(self) -> int:
        return sum(lane.acknowledged for lane in self.nodes.lanes)

    async def write(self, batches: Sequence[Batch]) -> Sequence[Failure]:
        if self.nodes.bug is not None:  # better no answer than a wrong one: the worker ends
            raise self.nodes.bug
        if not batches:
            return ()
        ticket = Ticket(len(batches), self._loop.time(), self._loop.create_future())
        used = set()
        pick, nodes = self.nodes.router.pick, self.nodes.by_host
        for batch in batches:
            lane = pick(batch[0], nodes)
            if lane is None:
                ticket.fail(batch, self.nodes.unreachable())
                continue
            lane.send(ticket, batch)
            used.add(lane)
        for lane in used:
            lane.flush()
        await ticket.done
        return ticket.failures

    async def close(self) -> None:
        await self.nodes.close()
