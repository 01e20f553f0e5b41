"""Which edits of a registry may follow the one in force."""

from dataclasses import replace

import pytest

from eventstore.tenancy import Registry, Tenant, Tier
from eventstore.tenancy.buckets import history
from eventstore.tenancy.succession import NOTICE_MS, succession_problems
from tests.builders import DAY_MS, NOW_MS, cluster, registry, tier

pytestmark = pytest.mark.unit

OLD = tier("t30", buckets=history([(0, 10 * DAY_MS), (NOW_MS - DAY_MS, 5 * DAY_MS)]))


def of(*tiers: Tier) -> Registry:
    return registry(*(Tenant(f"tenant-{each.name}", each) for each in tiers))


def told(*tiers: Tier) -> list[str]:
    return [str(problem) for problem in succession_problems(of(OLD), of(*tiers), NOW_MS)]


def appended(effective_from_ms: int) -> Tier:
    pairs = [(s.effective_from_ms, s.width_ms) for s in OLD.buckets.strategies]
    return replace(OLD, buckets=history([*pairs, (effective_from_ms, DAY_MS)]))


def test_the_same_registry_and_new_tiers_may_follow() -> None:
    assert told(OLD) == told(OLD, tier("t15")) == []


def test_a_strategy_that_begins_after_the_notice_may_be_appended() -> None:
    assert told(appended(NOW_MS + NOTICE_MS)) == []


def test_a_strategy_that_begins_sooner_is_refused_because_rows_may_be_there() -> None:
    (problem,) = told(appended(NOW_MS + NOTICE_MS - 1))
    assert problem.startswith("tiers.t30.buckets: a strategy was appended that is effective from ")


def test_a_changed_strategy_is_refused() -> None:
    (problem,) = told(replace(OLD, buckets=history([(0, 10 * DAY_MS)])))
    assert "changed or removed; append to the list instead" in problem


def test_another_retention_is_refused() -> None:
    (problem,) = told(replace(OLD, retention_seconds=15 * 86_400))
    assert problem.startswith("tiers.t30.retention: expected 30d, which rows are written with, got 15d; ")


def test_a_tier_that_moves_to_another_cluster_is_refused() -> None:
    (problem,) = told(replace(OLD, cluster=cluster("other")))
    assert problem.startswith("tiers.t30.cluster: expected c30, where its rows are, got other; ")


def test_another_keyspace_is_refused() -> None:
    (problem,) = told(replace(OLD, cluster=replace(OLD.cluster, keyspace="fresh")))
    assert problem.startswith("clusters.c30.keyspace: expected eventstore, where its rows are, got fresh; ")


def test_a_tier_may_be_renamed_but_its_clusters_rows_keep_their_strategies() -> None:
    assert told(replace(OLD, name="month")) == []
    (problem,) = told(replace(OLD, name="month", buckets=history([(0, DAY_MS)])))
    assert problem.startswith("tiers.month.buckets: ")


def test_a_dedicated_clusters_problem_stands_at_the_cluster() -> None:
    vip = tier("vip", on=cluster("vip"))
    longer = replace(vip, retention_seconds=2 * vip.retention_seconds)
    (problem,) = succession_problems(of(vip), of(longer), NOW_MS)
    assert problem.path == "clusters.vip.retention"


def test_a_tier_may_be_removed_and_nodes_may_change() -> None:
    assert told(tier("t15")) == []
    assert told(replace(OLD, cluster=replace(OLD.cluster, contact_points=("10.9.9.9",), port=9142))) == []
