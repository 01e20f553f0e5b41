"""Names that dashboards rely on, and counters whose number of series is bounded."""

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.metrics import MetricWrapperBase

from eventstore import metrics
from eventstore.config import Settings
from eventstore.metrics import TenantCounts

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")
ALERTS = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text("utf-8"))


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


def labels_by_name() -> dict[str, set[str]]:
    wrappers = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    return {next(iter(wrapper.describe())).name: set(wrapper._labelnames) for wrapper in wrappers}


def test_the_page_for_operators_explains_every_metric_with_its_labels() -> None:
    rows = dict(re.findall(r"^\| `(eventstore_\w+)` \| ([a-z, ]*)\|", OPERATIONS, re.MULTILINE))
    assert set(rows) == exposed()
    for name, labels in labels_by_name().items():
        told = rows[name if name in rows else f"{name}_total"]
        assert set(filter(None, told.strip().split(", "))) == labels, name


def test_every_alert_asks_for_metrics_and_labels_that_exist_and_says_what_to_do() -> None:
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    known = exposed() | {f"{name}_bucket" for name in exposed()}
    labels = set.union(*labels_by_name().values()) | {"instance", "le"}
    for rule in rules:
        assert set(re.findall(r"eventstore_\w+", rule["expr"])) <= known, rule["alert"]
        for grouped in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            assert set(grouped.split(", ")) <= labels, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "action"}


def test_every_setting_that_operators_are_told_of_exists() -> None:
    told = set(
        re.findall(r"`(worker|circuit|log)\.(\w+)", OPERATIONS + (ROOT / "deploy" / "alerts.yaml").read_text("utf-8"))
    )
    settings = Settings.model_construct()
    assert len(told) > 5, "the walk has lost its way"
    assert [
        (section, name) for section, name in told if name not in type(getattr(settings, section)).model_fields
    ] == []


def test_every_log_line_that_operators_are_told_of_is_written() -> None:
    told = re.findall(r"^\| `([a-z][^|]+[a-z`])` \| [^|]+ \|$", OPERATIONS.partition("## Log lines")[2], re.MULTILINE)
    assert len(told) > 5, "the walk has lost its way"
    source = "".join(
        path.read_text("utf-8") for folder in ("eventstore", "workers") for path in (ROOT / folder).rglob("*.py")
    )
    assert [line for line in told if f'"{line}"' not in source] == []


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
