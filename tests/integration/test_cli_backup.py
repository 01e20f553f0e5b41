"""Backups of clusters that ScyllaDB Manager looks after; the drill backs up and restores the embedded ones."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import typer
from typer.testing import CliRunner, Result

from eventstore.cli import backup as command
from eventstore.errors import ConfigurationError, QueryError, RefusedError, StoreError
from eventstore.replay.marks import MarkTable
from eventstore.stream.producer import RecordProducer
from eventstore.stream.topics import retry_topic
from tests.own_topics import OwnTopics, own_topics
from tests.stacks import RunningStack

pytestmark = pytest.mark.integration

REGISTRY = """\
clusters:
  far: {contact_points: [198.51.100.1], datacenter: dc1, keyspace: eventstore, replication: 3}
  near: {contact_points: [198.51.100.2], datacenter: dc1, keyspace: eventstore, replication: 3}
tiers:
  t30: {retention: 30d, cluster: far, buckets: [{width: 10d}]}
  t15: {retention: 15d, cluster: near, buckets: [{width: 5d}]}
"""


@pytest.fixture(scope="module")
def topics(stack: RunningStack) -> Iterator[OwnTopics]:
    with own_topics(stack, clusters=["far", "near"]) as made:
        yield made


@pytest.fixture
def marks(topics: OwnTopics) -> MarkTable:
    return MarkTable(topics.settings.kafka, topics.settings.topics.marks)


@pytest.fixture
def name() -> str:
    return f"m-{uuid4().hex[:8]}"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The only directory on the PATH."""
    made = tmp_path / "bin"
    made.mkdir()
    return made


def sctool(tools: Path, script: str) -> None:
    tool = tools / "sctool"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)


def run(topics: OwnTopics, tools: Path, *arguments: str) -> Result:
    registry = tools / "tenants.yaml"
    registry.write_text(REGISTRY)
    app = typer.Typer(pretty_exceptions_enable=False)
    command.register(app)
    environment = topics.environment | {
        "EVENTSTORE_REGISTRY": str(registry),
        "EVENTSTORE_TOPICS__MARKS": topics.settings.topics.marks,
        "EVENTSTORE_TOPICS__RETRY_PREFIX": topics.settings.topics.retry_prefix,
        "PATH": str(tools),
    }
    return CliRunner(env=environment).invoke(app, arguments)


def test_without_run_the_commands_are_shown_in_their_order_and_nothing_is_marked(
    topics: OwnTopics, marks: MarkTable, tools: Path
) -> None:
    before = marks.read()
    first, second = run(topics, tools, "backup", "--cluster", "far", "--location", "s3:b").stdout.splitlines()
    assert first.startswith("eventstore marks add --cluster far")
    assert second == "sctool backup --cluster far --keyspace eventstore --location s3:b"
    assert marks.read() == before


def test_with_run_the_mark_comes_first_and_then_hears_the_name_of_the_task(
    topics: OwnTopics, marks: MarkTable, tools: Path, name: str
) -> None:
    sctool(tools, f'echo "$@" > {tools}/asked; echo backup/0c1d')
    done = run(topics, tools, "backup", "--cluster", "far", "--name", name, "--location", "s3:b", "--run", "--json")
    assert json.loads(done.stdout)["snapshot"] == "backup/0c1d"
    assert marks.find(name).snapshot == "backup/0c1d"
    assert (tools / "asked").read_text().split()[:3] == ["backup", "--cluster", "far"]

    shown = run(topics, tools, "restore", name).stdout.splitlines()
    assert [" ".join(line.split()[:3]) for line in shown] == [
        "eventstore schema apply", "sctool backup list", "sctool restore --cluster", "eventstore erasures repeat",
        "eventstore replay run",
    ]  # fmt: skip
    assert isinstance(run(topics, tools, "restore", name, "--execute").exception, QueryError)


def test_a_task_that_cannot_be_started_leaves_a_mark_without_a_snapshot(
    topics: OwnTopics, marks: MarkTable, tools: Path, name: str
) -> None:
    sctool(tools, "echo 'no such cluster' >&2; exit 1")
    failed = run(topics, tools, "backup", "--cluster", "far", "--name", name, "--location", "s3:b", "--run")
    assert isinstance(failed.exception, StoreError)
    assert "no such cluster" in str(failed.exception)
    assert marks.find(name).snapshot is None
    assert isinstance(run(topics, tools, "restore", name).exception, QueryError)


def test_records_that_wait_in_the_retry_topic_refuse_a_backup_of_their_cluster(
    topics: OwnTopics, marks: MarkTable, tools: Path, name: str
) -> None:
    sctool(tools, "echo backup/1")
    settings = topics.settings
    producer = RecordProducer(settings.kafka, settings.producer, retry_topic(settings.topics, "near"))
    producer.publish(b"shop:u1", b"{}")
    producer.confirm()
    call = ("backup", "--name", name, "--location", "s3:b", "--run", "--cluster")
    refused = run(topics, tools, *call, "near").exception
    assert isinstance(refused, RefusedError)
    assert "1 diverted records" in str(refused)
    assert name not in [mark.name for mark in marks.read()]
    assert run(topics, tools, *call, "far").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["backup", "--cluster", "c99"], ConfigurationError, "expected a cluster that a tier uses (far, near)"),
        (["backup", "--cluster", "far", "--increment"], QueryError, "without --increment"),
        (["backup", "--cluster", "far", "--run"], ConfigurationError, "--location"),
        (["backup", "--cluster", "far", "--run", "--location", "s3:b"], ConfigurationError, "sctool: expected it on"),
        (["restore", "never"], QueryError, "got 'never'"),
    ],
)
def test_a_call_that_cannot_work_is_refused_before_anything_is_marked(
    topics: OwnTopics, marks: MarkTable, tools: Path, *, arguments: list[str], kind: type[Exception], said: str
) -> None:
    before = marks.read()
    refused = run(topics, tools, *arguments).exception
    assert isinstance(refused, kind)
    assert said in str(refused)
    assert marks.read() == before
