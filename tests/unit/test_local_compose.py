"""The containers stand where the example registry looks for them. Without an engine only parsing can be tested."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from eventstore.config import KafkaSettings

pytestmark = pytest.mark.unit

REPOSITORY = Path(__file__).parent.parent.parent


def read(path: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((REPOSITORY / path).read_text())
    return document


COMPOSE = read("deploy/compose.yaml")
CLUSTERS = read("schemas/tenants.example.yaml")["clusters"]


def test_there_is_one_service_for_each_cluster_and_a_kafka() -> None:
    assert set(COMPOSE["services"]) == {"kafka", *CLUSTERS}


@pytest.mark.parametrize("name", CLUSTERS)
def test_each_cluster_is_published_at_its_contact_point(name: str) -> None:
    cluster = CLUSTERS[name]
    assert COMPOSE["services"][name]["ports"] == [f"{cluster['contact_points'][0]}:{cluster['port']}:9042"]


def test_every_node_is_in_the_datacenter_that_the_registry_names() -> None:
    rackdc = COMPOSE["configs"]["rackdc"]["content"].split()
    assert {f"dc={cluster['datacenter']}" for cluster in CLUSTERS.values()} == {rackdc[0]}


def test_kafka_is_published_where_the_settings_look_by_default() -> None:
    kafka = COMPOSE["services"]["kafka"]
    default = KafkaSettings().bootstrap_servers
    assert kafka["ports"] == [f"{default}:{default.rpartition(':')[2]}"]
    assert kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{default}"
