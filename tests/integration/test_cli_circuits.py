import json
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from eventstore.cli import circuits as command
from eventstore.stream.producer import RecordProducer
from eventstore.stream.topics import retry_topic
from tests.own_topics import OwnTopics, own_topics
from tests.stacks import RunningStack

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def topics(stack: RunningStack) -> Iterator[OwnTopics]:
    with own_topics(stack, clusters=["c15", "c30", "gone"]) as made:
        settings = made.settings
        producer = RecordProducer(settings.kafka, settings.producer, retry_topic(settings.topics, "gone"))
        for number in range(3):
            producer.publish(b"shop:u%d" % number, b"{}")
        producer.confirm()
        yield made


def run(topics: OwnTopics, *arguments: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    command.register(app)
    return CliRunner(env=topics.environment).invoke(app, ["circuits", *arguments])


def listed(topics: OwnTopics) -> dict[str, dict[str, Any]]:
    return {each["cluster"]: each for each in json.loads(run(topics, "list", "--json").stdout)}


def test_what_an_operator_wants_is_listed_until_it_is_taken_back(topics: OwnTopics) -> None:
    assert "diverts" in run(topics, "open", "c30").stdout
    assert "waits" in run(topics, "close", "c15").stdout
    found = listed(topics)
    assert {name: each["wanted"] for name, each in found.items()} == {"c15": "closed", "c30": "open", "gone": "auto"}
    assert found["c30"]["since"].endswith("Z")
    for cluster in ("c15", "c30"):
        assert run(topics, "auto", cluster).exit_code == 0
    assert {each["wanted"] for each in listed(topics).values()} == {"auto"}


def test_records_that_wait_are_counted_for_a_cluster_that_left_the_registry_too(topics: OwnTopics) -> None:
    found = listed(topics)
    assert {name: each["waiting"] for name, each in found.items()} == {"c15": 0, "c30": 0, "gone": 3}
    assert [name for name, each in found.items() if not each["in_registry"]] == ["gone"]
    assert "not in the registry" in run(topics, "list").stdout


def test_an_unknown_cluster_is_refused_by_name(topics: OwnTopics) -> None:
    refused = run(topics, "open", "c99")
    assert "c99: expected a cluster of the registry, one of c15, c30" in str(refused.exception)
