"""Backups of clusters that ScyllaDB Manager looks after; the drill backs up and restores the embedded ones."""

import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import typer
from typer.testing import CliRunner, Result

from eventstore.cli import backup, restore
from eventstore.errors import ConfigurationError, QueryError, RefusedError, StoreError
from eventstore.replay.marks import Mark, MarkTable
from eventstore.stream.producer import RecordProducer
from eventstore.stream.topics import retry_topic
from tests.own_topics import OwnTopics, own_topics
from tests.stacks import RunningStack

pytestmark = pytest.mark.integration

REGISTRY = """\
clusters:
  far: {contact_points: [198.51.100.1], datacenter: dc1, keyspace: eventstore, replication: 3}
  near: {contact_points: [198.51.100.2], datacenter: dc1, keyspace: eventstore, replication: 3}
  spare: {contact_points: [198.51.100.3], datacenter: dc1, keyspace: eventstore, replication: 3}
  renamed: {contact_points: [198.51.100.4], datacenter: dc1, keyspace: other, replication: 3}
  here: {contact_points: [127.0.9.1], datacenter: dc1, keyspace: eventstore, replication: 1}
tiers:
  t30: {retention: 30d, cluster: far, buckets: [{width: 10d}]}
  t15: {retention: 15d, cluster: near, buckets: [{width: 5d}]}
  t60: {retention: 60d, cluster: here, buckets: [{width: 20d}]}
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
    backup.register(app)
    restore.register(app)
    environment = topics.environment | {
        "EVENTSTORE_LOCAL__BACKUP_DIR": str(tools / "backups"),
        "EVENTSTORE_LOCAL__DATA_DIR": str(tools / "servers"),
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
        "eventstore schema apply", "eventstore erasures repeat", "sctool backup list", "sctool restore --cluster",
        "sctool progress --cluster", "sctool repair --cluster", "eventstore erasures repeat", "eventstore replay run",
    ]  # fmt: skip
    taken = datetime.fromtimestamp(marks.find(name).created_ms / 1_000, UTC)
    assert f"sm_{taken:%Y%m%d%H%M%S}UTC or later, never earlier" in shown[2]
    assert isinstance(run(topics, tools, "restore", name, "--execute").exception, QueryError)


def test_a_snapshot_may_be_loaded_into_a_cluster_that_no_tier_uses(
    topics: OwnTopics, marks: MarkTable, tools: Path, name: str
) -> None:
    marks.add(Mark(name=name, created_ms=1, topic=topics.events, group="g", offsets={}, cluster="far", snapshot="t"))
    shown = run(topics, tools, "restore", name, "--into", "spare").stdout.splitlines()
    assert shown[0] == "eventstore schema apply --cluster spare --as-tier t30"
    assert "--cluster spare --as-tier t30 --execute" in shown[1]
    assert shown[-1] == f"eventstore replay run --from-mark {name} --tier t30 --into spare --execute"
    for other, said in (("near", "found tier t15 on it"), ("renamed", "expected keyspace eventstore")):
        refused = run(topics, tools, "restore", name, "--into", other).exception
        assert isinstance(refused, RefusedError)
        assert said in str(refused)


def test_an_increment_that_cannot_be_taken_leaves_no_mark(
    topics: OwnTopics, marks: MarkTable, tools: Path, name: str
) -> None:
    known = Mark(name=name, created_ms=1, topic=topics.events, group="g", offsets={}, cluster="here", snapshot=name)
    marks.add(known)  # its snapshot is not where it should be
    call = ("backup", "--cluster", "here", "--increment", "--name", f"{name}-increment")
    refused = run(topics, tools, *call)
    assert isinstance(refused.exception, QueryError)
    assert f"got '{name}'" in str(refused.exception)
    assert f"{name}-increment" not in [mark.name for mark in marks.read()]


@pytest.mark.parametrize(("topic", "topic_id"), [("older", None), (None, "of-one-that-was-deleted")])
def test_who_restores_hears_that_the_topic_is_not_the_one_of_the_mark(
    topics: OwnTopics, marks: MarkTable, tools: Path, name: str, *, topic: str | None, topic_id: str | None
) -> None:
    of = topic or topics.events
    marks.add(
        Mark(name=name, created_ms=1, topic=of, topic_id=topic_id, group="g", offsets={}, cluster="far", snapshot="t")
    )
    assert "offsets are of another topic" in run(topics, tools, "restore", name).stderr


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
        (["backup", "--cluster", "c99"], ConfigurationError, "expected a cluster that a tier uses (far, near, here)"),
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
