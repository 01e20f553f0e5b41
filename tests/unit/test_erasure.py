import asyncio
from dataclasses import replace

import pytest

from eventstore.errors import TransientStoreError
from eventstore.events.erasure import NEVER, Erasure, Erasures
from eventstore.ingest.admission import ClockRules
from eventstore.replay.erasure import Survey, holders, reach, survey, unused_clusters
from eventstore.replay.plan import Plan
from eventstore.replay.scope import Scope
from eventstore.tenancy import Cluster, Registry, Tenant
from tests.builders import DAY_MS, NOW_MS, cluster, registry, stored, tier
from tests.timeline_memory import MemoryStore

pytestmark = pytest.mark.unit

ERASURE = Erasure("shop", "u1", NOW_MS * 1_000, NOW_MS)


class OneAway(MemoryStore):
    """Every cluster's store but one's."""

    async def of(self, cluster: Cluster) -> MemoryStore:
        if cluster.name == "c15":
            raise TransientStoreError("c15: no node answers")
        return self


def two_tiers() -> Registry:
    return registry(Tenant("shop", tier()), Tenant("forum", tier("t15", days=15)))


def looked(store: MemoryStore, within: Registry) -> Survey:
    return asyncio.run(survey(ERASURE, reach(within.tiers.values(), NOW_MS, ClockRules()), store))


def test_a_cluster_that_is_away_is_named_and_the_others_are_counted() -> None:
    store = OneAway()
    store.insert("shop", "u1", tier(), stored(NOW_MS - DAY_MS))
    seen = looked(store, two_tiers())
    assert [(holding.cluster, holding.rows) for holding in seen.found] == [("c30", 1)]
    assert seen.unseen == {"c15": "c15: no node answers"}


def test_a_cluster_without_rows_is_not_mentioned() -> None:
    assert looked(MemoryStore(), two_tiers()) == Survey((), {})


def test_an_erasure_heard_after_a_longer_one_does_not_shorten_it() -> None:
    """Two are recorded at the same time: neither knew of the other, and the shorter one comes last."""
    erasures, key = Erasures(), ERASURE.key
    erasures.hear(key, 20)
    erasures.hear(key, 10)
    assert erasures.floor(key) == 20
    erasures.hear(key, None)
    assert erasures.floor(key) == NEVER
    erasures.hear(key, 10)
    assert erasures.floor(key) == 10


def test_buckets_that_hold_impressions_only_are_reached_too() -> None:
    longer = replace(tier(days=30, width_days=10), impressions_retention_seconds=60 * 86_400)
    (events,) = reach([tier(days=30, width_days=10)], NOW_MS, ClockRules())
    (both,) = reach([longer], NOW_MS, ClockRules())
    assert len(both.buckets) == len(events.buckets) + 3


def plan(scope: Scope) -> Plan:
    return Plan("r1", "events", "g", {}, scope, (), NOW_MS)


def with_spare() -> Registry:
    made = two_tiers()
    return replace(made, clusters={**made.clusters, "c30b": cluster("c30b")})


def test_a_cluster_that_a_replay_has_written_holds_events_of_that_tier() -> None:
    within = with_spare()
    held = holders(within, [plan(Scope(tiers=("t15",), into="c30b")), plan(Scope())])
    assert [(tier.name, tier.cluster.name) for tier in held] == [("t30", "c30"), ("t15", "c15"), ("t15", "c30b")]
    assert unused_clusters(within, held) == []


def test_whose_events_a_cluster_holds_that_nothing_names_is_not_guessed() -> None:
    within = with_spare()
    of_a_tier_that_is_gone = plan(Scope(tiers=("t7",), into="c30b"))
    assert unused_clusters(within, holders(within, [of_a_tier_that_is_gone])) == ["c30b"]
