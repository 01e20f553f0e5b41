"""Which lane a batch or a read takes: token, then replica, then shard; among equals the one with the least in flight."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from cassandra import cqltypes
from cassandra.metadata import Metadata, Murmur3Token
from cassandra.tablets import Tablet, Tablets

from eventstore.events.cells import Cells, TableName, routing_key, table_of
from eventstore.store.lane.frames import VERSION
from eventstore.store.lane.line import Line
from eventstore.store.lane.node import L, Node

_TABLET: Final = cqltypes.lookup_casstype("TupleType(LongType, LongType, ListType(TupleType(UUIDType, Int32Type)))")


@dataclass(frozen=True, slots=True)
class Ring:
    """The token ring of a keyspace with virtual nodes, as the driver knows it."""

    tokens: Sequence[int]
    owners: Sequence[Sequence[UUID]]
    """Host ids of the replicas of the token at the same place."""

    def replicas(self, token: int) -> Sequence[UUID]:
        place = bisect_left(self.tokens, token)
        return self.owners[place if place < len(self.tokens) else 0] if self.tokens else ()


class Router:
    def __init__(self, metadata: Metadata, keyspace: str) -> None:
        self._metadata = metadata
        self._keyspace = keyspace
        self._tablets = Tablets({})
        self._ring_of: Any = None
        self._ring = Ring((), ())

    def pick(self, row: Cells, nodes: Mapping[UUID, Node[L]]) -> L | None:
        """The lane for a row's partition; None while no node is connected. The cells of its key are enough.

        Any node can coordinate, so a partition whose replicas are all away still gets a lane.
        """
        if len(nodes) == 1:
            (node,) = nodes.values()
            if node.shards == 1:
                return node.lane(0)
        token = Murmur3Token.hash_fn(routing_key(row))
        lanes = [lane for host, shard in self._places(table_of(row), token) if (node_ := nodes.get(host)) is not None
                 and (lane := node_.lane_of(token) if shard is None else node_.lane(shard)) is not None]  # fmt: skip
        if not lanes:
            lanes = [lane for node in nodes.values() if (lane := node.lane_of(token)) is not None]
        return min(lanes, key=_load, default=None)

    def learn(self, table: TableName, payload: bytes) -> None:
        """A node has said which tablet of the table a request belonged to."""
        tablet = Tablet.from_row(*_TABLET.from_binary(payload, VERSION))
        if tablet is not None:
            self._tablets.add_tablet(self._keyspace, table, tablet)

    def forget(self, host: UUID) -> None:
        self._tablets.drop_tablets_by_host_id(host)

    def _places(self, table: TableName, token: int) -> Sequence[tuple[UUID, int | None]]:
        """(host, shard) of each replica; no shard where the node's own rule tells it."""
        tablet = self._tablets.get_tablet_for_key(self._keyspace, table, Murmur3Token(token))
        if tablet is not None:
            places: Sequence[tuple[UUID, int]] = tablet.replicas
            return places
        return [(host, None) for host in self._current_ring().replicas(token)]

    def _current_ring(self) -> Ring:
        known = self._metadata.token_map
        if known is None:
            return self._ring
        owners = known.tokens_to_hosts_by_ks.get(self._keyspace)
        if owners is None and known.ring:  # the driver places replicas only once it is asked for some
            known.get_replicas(self._keyspace, known.ring[0])
            owners = known.tokens_to_hosts_by_ks.get(self._keyspace)
        if owners is not None and owners is not self._ring_of:  # it builds a new one when the topology changes
            self._ring = Ring(
                [token.value for token in known.ring],
                [[host.host_id for host in owners.get(token, ())] for token in known.ring],
            )
            self._ring_of = owners
        return self._ring


def _load(lane: Line) -> int:
    return lane.load
