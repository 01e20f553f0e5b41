import json
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
import typer
from typer.testing import CliRunner, Result

from eventstore.cli import marks as command
from eventstore.errors import QueryError, RefusedError
from eventstore.replay.marks import Mark, MarkTable, check_nothing_waits, mark_and_snapshot, take_mark
from eventstore.stream.offsets import TopicOffsets
from eventstore.stream.producer import RecordProducer
from eventstore.stream.topics import retry_topic
from tests.own_topics import OwnTopics, own_topics
from tests.stacks import RunningStack

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def topics(stack: RunningStack) -> Iterator[OwnTopics]:
    with own_topics(stack, partitions=2, clusters=["c15", "c30"]) as made:
        yield made


@pytest.fixture
def marks(topics: OwnTopics) -> MarkTable:
    return MarkTable(topics.settings.kafka, topics.settings.topics.marks)


@pytest.fixture
def group() -> str:
    return f"group-{uuid4().hex[:8]}"


@pytest.fixture
def name() -> str:
    return f"m-{uuid4().hex[:8]}"


def publish(topics: OwnTopics, count: int) -> None:
    producer = RecordProducer(topics.settings.kafka, topics.settings.producer, topics.events)
    for number in range(count):
        producer.publish(b"shop:u%d" % number, b"{}", partition=number % 2)
    producer.confirm()


def live(topics: OwnTopics) -> TopicOffsets:
    return TopicOffsets(topics.settings.kafka, topics.events)


def catch_up(topics: OwnTopics, group: str) -> dict[int, int]:
    """What a live group does that has stored everything."""
    ends = {partition: there.end for partition, there in live(topics).held().items()}
    live(topics).move(group, ends)
    return ends


def take(topics: OwnTopics, group: str, name: str, now_ms: int = 1) -> Mark:
    return take_mark(
        topics.settings.kafka, name=name, topic=topics.events, group=group, now_ms=now_ms, cluster="c30"
    )  # fmt: skip


def test_what_is_stored_while_the_snapshot_is_taken_lies_behind_its_mark(
    topics: OwnTopics, marks: MarkTable, group: str, name: str
) -> None:
    publish(topics, 6)
    before = catch_up(topics, group)

    def snapshot() -> str:
        assert marks.find(name).offsets == before, "the mark is kept before the snapshot begins"
        assert marks.find(name).snapshot is None
        publish(topics, 4)  # stored and committed meanwhile: whether the snapshot has them nobody knows
        catch_up(topics, group)
        return "tag"

    mark = mark_and_snapshot(marks, take(topics, group, name), snapshot)
    assert mark.offsets == before
    assert mark.partitions == 2
    assert marks.find(name) == mark
    assert mark.snapshot == "tag"
    assert sum(live(topics).committed(group).values()) == sum(before.values()) + 4


def test_a_snapshot_that_fails_leaves_a_mark_that_says_so(
    topics: OwnTopics, marks: MarkTable, group: str, name: str
) -> None:
    def snapshot() -> str:
        raise RefusedError("no room")

    with pytest.raises(RefusedError, match="no room"):
        mark_and_snapshot(marks, take(topics, group, name), snapshot)
    assert marks.find(name).snapshot is None


def test_a_partition_without_a_commit_is_marked_at_its_first_record(topics: OwnTopics, group: str, name: str) -> None:
    publish(topics, 2)
    live(topics).move(group, {1: 1})
    assert take(topics, group, name).offsets == {0: 0, 1: 1}


def test_a_mark_is_never_overwritten(topics: OwnTopics, marks: MarkTable, group: str, name: str) -> None:
    marks.add(take(topics, group, name))
    with pytest.raises(RefusedError, match=f"mark {name}: expected a new name"):
        marks.add(take(topics, group, name, now_ms=2))
    assert marks.find(name).created_ms == 1


@pytest.mark.parametrize("wrong", ["", "a b", "../x", "-x", "x" * 101])
def test_a_name_that_could_be_mistaken_is_refused(topics: OwnTopics, group: str, wrong: str) -> None:
    with pytest.raises(QueryError, match="expected a name"):
        take(topics, group, wrong)


def test_diverted_records_that_wait_would_be_lost_and_stand_in_the_way_of_their_cluster_only(
    topics: OwnTopics, group: str, name: str
) -> None:
    mark = take(topics, group, name)
    check_nothing_waits(mark, {"c15": 7, "c30": 0})
    with pytest.raises(RefusedError, match=r"expected nothing to wait for c30, 1,200 diverted records do"):
        check_nothing_waits(mark, {"c30": 1_200})


@pytest.fixture
def run(topics: OwnTopics, stack: RunningStack) -> Callable[..., Result]:
    environment = topics.environment | {"EVENTSTORE_REGISTRY": str(stack.registry_path)}

    def call(*arguments: str) -> Result:
        app = typer.Typer(pretty_exceptions_enable=False)
        command.register(app)
        return CliRunner(env=environment).invoke(app, ["marks", *arguments])

    return call


def test_a_mark_of_a_cluster_is_refused_while_records_wait_for_it(
    topics: OwnTopics, marks: MarkTable, run: Callable[..., Result], name: str
) -> None:
    settings = topics.settings
    producer = RecordProducer(settings.kafka, settings.producer, retry_topic(settings.topics, "c15"))
    producer.publish(b"shop:u1", b"{}")
    producer.confirm()
    refused = run("add", name, "--cluster", "c15").exception
    assert isinstance(refused, RefusedError)
    assert "1 diverted records" in str(refused)
    assert name not in [mark.name for mark in marks.read()]
    assert run("add", name, "--cluster", "c30").exit_code == 0
    assert run("add", f"{name}-of-none").exit_code == 0


def test_marks_are_listed_by_age_shown_and_removed(run: Callable[..., Result]) -> None:
    older, newer = f"a-{uuid4().hex[:6]}", f"0-{uuid4().hex[:6]}"
    assert run("add", older, "--cluster", "c30", "--snapshot", "sm_1").exit_code == 0
    assert run("add", newer).exit_code == 0
    found = json.loads(run("list", "--json").stdout)
    assert {mark["gone"] for mark in found} == {0}, "nothing has aged out of the topic"
    listed = [mark["name"] for mark in found]
    assert listed.index(older) < listed.index(newer)
    assert older in run("list").stdout
    assert newer not in run("list", "--cluster", "c30").stdout
    shown = json.loads(run("show", older, "--json").stdout)
    assert (shown["snapshot"], list(shown["offsets"])) == ("sm_1", ["0", "1"])
    assert run("remove", newer).exit_code == 0
    for gone in ("show", "remove"):
        assert f"got '{newer}'" in str(run(gone, newer).exception)
    assert "c99" in str(run("add", "--cluster", "c99").exception)
