"""Erasing one user's past: what would go, and how it goes so that nothing brings it back.

The order is what makes it safe. The erasure is recorded first; from then on workers leave out whatever it covers. Then
the partitions are deleted with the erasure's moment as the write time. A worker that has not heard of it yet may still
write an older event after the delete: its write time is its event time, so the tombstone shadows it. The tombstone
lives for `gc_grace_seconds`; a worker hears within moments, and one that cannot hear Kafka gets no events either.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from eventstore.events.erasure import Erasure
from eventstore.events.stored import Position, Slice
from eventstore.ingest.admission import ClockRules
from eventstore.store.eraser import Doomed
from eventstore.tenancy import Cluster, Registry, Tier
from eventstore.tenancy.buckets import Bucket
from eventstore.timeline.stores import TimelineStore, TimelineStores

COUNTED_AT_ONCE: Final = 8
"""Partitions of one cluster counted at the same time."""
END_OF_TIME_MS: Final = 2**53


@dataclass(frozen=True, slots=True)
class Reach:
    """A cluster and the buckets in which it may hold what an erasure covers."""

    tier: Tier
    buckets: tuple[Bucket, ...]

    @property
    def cluster(self) -> Cluster:
        return self.tier.cluster

    def doomed(self, erasure: Erasure) -> list[Doomed]:
        return [
            Doomed(erasure.to_micros, erasure.uid, erasure.tenant, bucket.bid)
            for bucket in self.buckets
            if bucket.start_ms * 1_000 <= erasure.to_micros
        ]


@dataclass(frozen=True, slots=True)
class Holding:
    """What one bucket of one cluster holds of the user."""

    cluster: str
    bucket: Bucket
    rows: int
    """At or before the erasure's moment."""
    newer: int
    """After it: these stay."""


def reach(registry: Registry, now_ms: int, clock: ClockRules) -> list[Reach]:
    """Every bucket that can hold rows now, on every cluster that a tier uses: a tenant may have moved between tiers.

    A row written fresh expires by the server's clock, so it may outlive its event time and retention by `late_after`.
    """
    slack_ms, ahead_ms = (int(1_000 * each) for each in (clock.late_after_seconds, clock.max_future_seconds))
    return [
        Reach(
            tier,
            tuple(tier.buckets.between(max(0, now_ms - tier.retention_seconds * 1_000 - slack_ms), now_ms + ahead_ms)),
        )
        for tier in registry.tiers.values()
    ]


async def survey(erasure: Erasure, within: Iterable[Reach], stores: TimelineStores) -> list[Holding]:
    """The buckets that hold rows of the user. Counts them on the servers.

    Raises:
        StoreError: a cluster does not answer, or has no such table.
    """
    counted = await asyncio.gather(*(_survey(erasure, each, stores) for each in within))
    return [holding for holdings in counted for holding in holdings if holding.rows or holding.newer]


async def _survey(erasure: Erasure, within: Reach, stores: TimelineStores) -> list[Holding]:
    store = await stores.of(within.cluster)
    places = asyncio.Semaphore(COUNTED_AT_ONCE)

    async def count(bucket: Bucket) -> Holding:
        async with places:
            return await _holding(erasure, within.cluster.name, bucket, store)

    return await asyncio.gather(*map(count, within.buckets))


async def _holding(erasure: Erasure, cluster: str, bucket: Bucket, store: TimelineStore) -> Holding:
    after_ms = erasure.to_micros // 1_000 + 1
    of_user = (erasure.tenant, erasure.uid, bucket.bid)
    return Holding(
        cluster,
        bucket,
        await store.count(Slice(*of_user, 0, Position(after_ms)), None),
        await store.count(Slice(*of_user, after_ms, Position(END_OF_TIME_MS)), None),
    )


def unused_clusters(registry: Registry) -> Sequence[str]:
    """Clusters that no tier uses: nobody knows their buckets, so nothing can be found or deleted there."""
    return [name for name in registry.clusters if registry.tier_of(name) is None]


def outlived(erasures: Iterable[Erasure], registry: Registry, now_ms: int, clock: ClockRules) -> list[Erasure]:
    """Those whose moment is older than anything that any tier could still store or hold."""
    longest = max((tier.retention_seconds for tier in registry.tiers.values()), default=0)
    oldest_micros = (now_ms - int(1_000 * (longest + clock.late_after_seconds))) * 1_000
    return [erasure for erasure in erasures if erasure.to_micros < oldest_micros] if registry.tiers else []
