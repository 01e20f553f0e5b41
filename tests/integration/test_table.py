import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from eventstore.config import KafkaSettings
from eventstore.errors import PermanentKafkaError, TransientKafkaError
from eventstore.stream import table
from eventstore.stream.admin import TopicAdmin
from eventstore.stream.table import TopicTable
from eventstore.stream.topics import Topic
from tests.stacks import RunningStack
from tests.waiting import eventually

pytestmark = pytest.mark.integration

Heard = list[tuple[str, bytes | None]]


@contextmanager
def own_table(stack: RunningStack) -> Iterator[TopicTable]:
    kafka = KafkaSettings(bootstrap_servers=stack.bootstrap_servers)
    topic = Topic(f"test-{uuid4().hex[:12]}.table", 1, 1, {"cleanup.policy": "compact"})
    admin = TopicAdmin(kafka)
    admin.apply([topic])
    try:
        yield TopicTable(kafka, topic.name)
    finally:
        admin.delete([topic.name])


@pytest.fixture
def entries(stack: RunningStack) -> Iterator[TopicTable]:
    with own_table(stack) as made:
        yield made


def test_the_last_value_of_each_key_is_read_and_a_deleted_key_is_not(entries: TopicTable) -> None:
    assert entries.read() == {}
    for key, value in [("a", b"1"), ("b", b"2"), ("a", b"3"), ("c", b"4"), ("c", None), ("ü", b"")]:
        entries.put(key, value)
    assert entries.read() == {"a": b"3", "b": b"2", "ü": b""}


def test_a_follower_enters_knowing_what_is_there_and_hears_what_comes(entries: TopicTable) -> None:
    entries.put("a", b"1")
    heard: Heard = []

    async def follow() -> None:
        async with entries.follow(lambda key, value: heard.append((key, value))):
            assert heard == [("a", b"1")]
            await asyncio.to_thread(entries.put, "b", b"2")
            await asyncio.to_thread(entries.put, "a", None)
            await eventually(lambda: len(heard) == 3, "two changes")

    asyncio.run(follow())
    assert heard == [("a", b"1"), ("b", b"2"), ("a", None)]


def test_followers_of_more_than_one_look_miss_nothing(entries: TopicTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "LOOK", 7)
    for number in range(60):
        entries.put(f"key {number}", b"%d" % number)
    heard: Heard = []

    async def follow() -> None:
        async with entries.follow(lambda key, value: heard.append((key, value))):
            pass

    asyncio.run(follow())
    assert heard == [(f"key {number}", b"%d" % number) for number in range(60)]


def test_a_listener_whose_callback_fails_ends_with_that_error(entries: TopicTable) -> None:
    def refuse(key: str, value: bytes | None) -> None:
        raise ValueError(key)

    async def follow() -> None:
        async with entries.follow(refuse) as listening:
            await asyncio.to_thread(entries.put, "odd", b"1")
            with pytest.raises(ValueError, match="odd"):
                await listening

    asyncio.run(follow())


def test_a_table_that_is_not_there_names_the_mend(stack: RunningStack) -> None:
    missing = TopicTable(KafkaSettings(bootstrap_servers=stack.bootstrap_servers), "test-no-such-table")
    with pytest.raises(PermanentKafkaError, match=r"test-no-such-table: .*eventstore topics apply"):
        missing.read()

    async def follow() -> None:
        async with missing.follow(lambda _key, _value: None):
            pytest.fail("entered without a topic")

    with pytest.raises(PermanentKafkaError, match="eventstore topics apply"):
        asyncio.run(follow())


def test_brokers_that_are_gone_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "REQUEST_TIMEOUT", 0.2)
    gone = TopicTable(KafkaSettings(bootstrap_servers="127.0.0.1:1"), "events.marks")
    with pytest.raises(TransientKafkaError, match=r"reading events\.marks: .*check that the brokers are up"):
        gone.read()
