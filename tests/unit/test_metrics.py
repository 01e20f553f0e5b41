"""Names that dashboards rely on, and counters whose number of series is bounded."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.metrics import MetricWrapperBase

from eventstore import metrics
from eventstore.metrics import TenantCounts

pytestmark = pytest.mark.unit

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
ALERTS = Path(__file__).parents[2] / "deploy" / "alerts.yaml"


def described() -> list[Metric]:
    found = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    return [described for metric in found for described in metric.describe()]


def exposed() -> set[str]:
    """Names as Prometheus sees them."""
    return {m.name + ("_total" if m.type == "counter" else "") for m in described()}


def test_every_metric_is_named_with_its_unit_and_explained() -> None:
    assert len(exposed()) > 20, "the walk has lost its way"
    for metric in described():
        assert re.fullmatch(r"eventstore_[a-z_]+", metric.name)
        assert metric.documentation.endswith("."), metric.name


def counter() -> Counter:
    return Counter("t", "T.", ["tenant", "outcome"], registry=CollectorRegistry())


def counted(of: Counter) -> dict[tuple[str, str], float]:
    samples = [sample for metric in of.collect() for sample in metric.samples if sample.name == "t_total"]
    return {(sample.labels["tenant"], sample.labels["outcome"]): sample.value for sample in samples}


def test_tenants_have_series_of_their_own_up_to_a_bound_the_busiest_first() -> None:
    records = counter()
    counts = TenantCounts(records, most=2)
    counts.add("stored", {"small": 1, "large": 100, "middle": 10})
    counts.add("stored", {"small": 5, "large": 1})
    counts.add("rejected", {"new": 7, "middle": 1})
    assert counted(records) == {
        ("large", "stored"): 101, ("middle", "stored"): 10, ("_other", "stored"): 6,
        ("middle", "rejected"): 1, ("_other", "rejected"): 7,
    }  # fmt: skip


def test_no_tenant_can_pass_for_the_others() -> None:
    assert metrics.OTHER_TENANTS.startswith("_")
