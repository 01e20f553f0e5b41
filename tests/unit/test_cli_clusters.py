from collections.abc import Sequence
from dataclasses import replace

import pytest

from eventstore.cli.clusters import named_tiers
from eventstore.errors import ConfigurationError, EventstoreError, RefusedError
from eventstore.tenancy import Registry, Tenant
from tests.builders import cluster, registry, tier

pytestmark = pytest.mark.unit


def with_spare() -> Registry:
    made = registry(Tenant("shop", tier()), Tenant("forum", tier("t15", days=15)))
    return replace(made, clusters={**made.clusters, "c30b": cluster("c30b")})


def named(*names: str, as_tier: str | None = None) -> list[tuple[str, str]]:
    return [(each.name, each.cluster.name) for each in named_tiers(with_spare(), names, as_tier)]


def test_every_tier_is_meant_unless_clusters_are_named() -> None:
    assert named() == named("all") == [("t30", "c30"), ("t15", "c15")]
    assert named("c15", "c15") == [("t15", "c15")]


def test_a_cluster_that_no_tier_uses_can_be_taken_for_one_of_a_tier() -> None:
    assert named("c30b", as_tier="t30") == [("t30", "c30b")]
    assert named("c30", as_tier="t30") == [("t30", "c30")]


@pytest.mark.parametrize(
    ("names", "as_tier", "kind", "said"),
    [
        (["c30b"], None, ConfigurationError, "one that none uses; say with --as-tier"),
        (["c99"], None, ConfigurationError, "not in the registry"),
        (["c99"], "t30", ConfigurationError, "got c99"),
        (["c30b"], "t99", ConfigurationError, r"expected a tier \(t30, t15\), got 't99'"),
        ([], "t30", ConfigurationError, "name it with --cluster"),
        (["c15"], "t30", RefusedError, "found tier t15 on it"),
    ],
)
def test_whose_events_a_cluster_is_to_hold_must_be_clear(
    names: Sequence[str], as_tier: str | None, kind: type[EventstoreError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        named(*names, as_tier=as_tier)
