"""A TimelineStore in memory: the second implementation that the contract tests hold against the real one."""

from collections import defaultdict
from collections.abc import Sequence

from eventstore.events.stored import Partition, Position, SeenPost, Slice, StoredEvent
from eventstore.tenancy import Cluster, Tier


class MemoryStore:
    """Rows by partition; remembers what it was asked for."""

    def __init__(self) -> None:
        self.partitions: defaultdict[tuple[str, str, int], dict[Position, StoredEvent]] = defaultdict(dict)
        self.newest: defaultdict[tuple[str, str], dict[str, StoredEvent]] = defaultdict(dict)
        """By tenant and user, then by name."""
        self.impressions: defaultdict[Partition, dict[str, SeenPost]] = defaultdict(dict)
        self.asked: list[Slice] = []
        self.fetched = 0

    def insert(self, tenant: str, uid: str, tier: Tier, *events: StoredEvent) -> None:
        for event in events:
            self.partitions[tenant, uid, tier.buckets.bid(event.timestamp)][event.position] = event

    def keep(self, tenant: str, uid: str, event: StoredEvent) -> None:
        """At hand, if it is the newest of its name."""
        held = self.newest[tenant, uid]
        held[event.event] = max(held.get(event.event, event), event, key=lambda each: each.timestamp)

    async def read(self, part: Slice, event: str | None, limit: int) -> list[StoredEvent]:
        self.asked.append(part)
        rows = self._rows(part, event)[:limit]
        self.fetched += len(rows)
        return rows

    async def count(self, part: Slice, event: str | None) -> int:
        self.asked.append(part)
        return len(self._rows(part, event))

    async def latest(self, tenant: str, uid: str, names: Sequence[str]) -> list[StoredEvent]:
        held = self.newest[tenant, uid]
        return [held[name] for name in names if name in held]

    async def seen(self, partition: Partition, posts: Sequence[str]) -> list[SeenPost]:
        held = self.impressions[partition]
        return [held[post] for post in posts if post in held]

    async def posts(self, partition: Partition, after: str, limit: int) -> list[SeenPost]:
        held = self.impressions[partition]
        return [held[post] for post in sorted(held, key=str.encode) if post.encode() > after.encode()][:limit]

    async def of(self, cluster: Cluster) -> "MemoryStore":
        """Every cluster's store at once."""
        return self

    def _rows(self, part: Slice, event: str | None) -> list[StoredEvent]:
        held = self.partitions.get((part.tenant, part.uid, part.bid), {})
        return [
            held[position]
            for position in sorted(held, key=server_order, reverse=True)
            if server_order(Position(part.since_ms)) <= server_order(position) < server_order(part.before)
            and event in (None, held[position].event)
        ]


def server_order(position: Position) -> tuple[int, int, int, bytes]:
    """The order of both servers: UUIDs by version first, version 1 by its time, then by bytes."""
    eid = position.eid
    version = eid.int >> 76 & 0xF
    return position.timestamp_ms, version, eid.time if version == 1 else 0, eid.bytes
