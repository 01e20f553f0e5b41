"""Erasing one user's past: what would go, and how it goes so that nothing brings it back.

The order is what makes it safe. The erasure is recorded first; from then on workers leave out whatever it covers. Then
the partitions are deleted with the erasure's moment as the write time. A worker that has not heard of it yet may still
write an older event after the delete: its write time is its event time, so the tombstone shadows it. The tombstone
lives for `gc_grace_seconds`; a worker hears within moments, and one that cannot hear Kafka gets no events either.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from eventstore.errors import EventstoreError
from eventstore.events.erasure import Erasure
from eventstore.events.stored import Position, Slice
from eventstore.ingest.admission import ClockRules
from eventstore.replay.plan import Plan
from eventstore.replay.scope import scoped
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


def reach(tiers: Iterable[Tier], now_ms: int, clock: ClockRules) -> list[Reach]:
    """Every bucket that can hold rows now, on these tiers' clusters.

    A row written fresh expires by the server's clock, so it may outlive its event time and retention by `late_after`.
    """
    slack_ms, ahead_ms = (int(1_000 * each) for each in (clock.late_after_seconds, clock.max_future_seconds))
    return [
        Reach(
            tier,
            tuple(tier.buckets.between(max(0, now_ms - tier.longest_seconds * 1_000 - slack_ms), now_ms + ahead_ms)),
        )
        for tier in tiers
    ]


def holders(registry: Registry, replays: Iterable[Plan]) -> list[Tier]:
    """Every cluster that is known to hold events, with the tier whose they are.

    A tenant may have moved between tiers, so all are of interest. A replay `--into` a cluster has left events on one that
    no tier uses.
    """
    tiers = {tier.cluster.name: tier for tier in registry.tiers.values()}
    for plan in replays:
        if plan.scope.into is not None and plan.scope.into not in tiers:
            with suppress(EventstoreError):  # of a registry that has changed since: `unused_clusters` tells of it
                for tier in scoped(registry, plan.scope).tiers.values():
                    tiers[tier.cluster.name] = tier
    return [*tiers.values()]


@dataclass(frozen=True, slots=True)
class Survey:
    """What the clusters hold of the user, as far as they answer."""

    found: tuple[Holding, ...]
    """Buckets with rows."""
    unseen: Mapping[str, str]
    """Why a cluster could not be looked at, by its name: it is away, or has no such table."""


async def survey(erasure: Erasure, within: Iterable[Reach], stores: TimelineStores) -> Survey:
    """The buckets that hold rows of the user, counted on the servers. One cluster's trouble stays its own."""
    asked = list(within)
    answers = await asyncio.gather(*(_answer(erasure, each, stores) for each in asked))
    return Survey(
        tuple(holding for answer in answers if not isinstance(answer, str) for holding in answer),
        {each.cluster.name: answer for each, answer in zip(asked, answers, strict=True) if isinstance(answer, str)},
    )


async def _answer(erasure: Erasure, within: Reach, stores: TimelineStores) -> list[Holding] | str:
    """What the cluster holds, or why it could not be asked."""
    try:
        counted = await _count(erasure, within, await stores.of(within.cluster))
    except EventstoreError as error:
        return str(error)
    return [holding for holding in counted if holding.rows or holding.newer]


async def _count(erasure: Erasure, within: Reach, store: TimelineStore) -> list[Holding]:
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


def unused_clusters(registry: Registry, held: Iterable[Tier]) -> Sequence[str]:
    """Clusters of which nobody knows whose events they hold, so nothing can be found or deleted there."""
    known = {tier.cluster.name for tier in held}
    return [name for name in registry.clusters if name not in known]


def outlived(erasures: Iterable[Erasure], registry: Registry, now_ms: int, clock: ClockRules) -> list[Erasure]:
    """Those whose moment is older than anything that any tier could still store or hold."""
    longest = max((tier.longest_seconds for tier in registry.tiers.values()), default=0)
    oldest_micros = (now_ms - int(1_000 * (longest + clock.late_after_seconds))) * 1_000
    return [erasure for erasure in erasures if erasure.to_micros < oldest_micros] if registry.tiers else []
