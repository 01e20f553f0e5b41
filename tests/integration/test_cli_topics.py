import json
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner, Result

from eventstore.cli import topics as command
from eventstore.registry import load_registry
from tests.own_topics import OwnTopics, own_topics
from tests.stacks import RunningStack

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def topics(stack: RunningStack) -> Iterator[OwnTopics]:
    with own_topics(stack, clusters=load_registry(stack.registry_path).clusters) as made:
        yield made


def run(topics: OwnTopics, *arguments: str, **environment: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    command.register(app)
    return CliRunner(env=topics.environment | environment).invoke(app, ["topics", *arguments])


def test_a_plan_without_steps_says_so(topics: OwnTopics) -> None:
    assert "as the settings want them" in run(topics, "plan").stdout
    assert json.loads(run(topics, "plan", "--json").stdout) == []


def test_a_plan_shows_what_is_wanted_and_why_it_is_not_done(topics: OwnTopics) -> None:
    shown = run(topics, "plan", EVENTSTORE_TOPICS__PARTITIONS="1")
    assert shown.exit_code == 0
    assert "keep" in shown.stdout
    assert "partitions are never taken away" in shown.stdout


def test_a_plan_for_scripts_names_each_step(topics: OwnTopics) -> None:
    steps = json.loads(run(topics, "plan", "--json", EVENTSTORE_TOPICS__EVENTS="test-not-there").stdout)
    assert [(step["topic"], step["action"]) for step in steps] == [("test-not-there", "create")]


def test_apply_says_what_it_did_and_a_second_one_that_nothing_is_left(topics: OwnTopics) -> None:
    longer = {"EVENTSTORE_TOPICS__RETENTION_HOURS": "999"}
    assert "retention.ms" in run(topics, "apply", **longer).stdout
    assert "as the settings want them" in run(topics, "apply", **longer).stdout


def test_a_list_tells_how_long_a_topic_keeps_its_records(topics: OwnTopics) -> None:
    found = {topic["name"]: topic for topic in json.loads(run(topics, "list", "--json").stdout)}
    assert found[topics.dead_letters]["config"]["retention.ms"] == str(720 * 3_600_000)
    line = next(line for line in run(topics, "list").stdout.splitlines() if topics.dead_letters in line)
    assert "720 h" in line


def test_every_cluster_of_the_registry_gets_a_retry_topic(topics: OwnTopics) -> None:
    steps = json.loads(run(topics, "plan", "--json", EVENTSTORE_TOPICS__RETRY_PREFIX="test-not-there").stdout)
    created = {step["topic"] for step in steps if step["action"] == "create"}
    assert created == {"test-not-there.c15", "test-not-there.c30"}


def test_a_registry_that_is_not_there_is_named(topics: OwnTopics) -> None:
    refused = run(topics, "plan", EVENTSTORE_REGISTRY="/nowhere/tenants.yaml")
    assert "/nowhere/tenants.yaml" in str(refused.exception)
