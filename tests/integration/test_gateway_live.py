"""One user live over HTTP: shown as it is published, and gone on with after any break."""

import asyncio
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import count
from threading import Thread
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import msgspec
import pytest

from eventstore.events.erasure import Erasure
from eventstore.stream.erasures import ErasureTable
from eventstore.stream.partitioner import partition_of
from eventstore.stream.tail import Tail
from eventstore.tenancy import KeyUse
from tests.feeds import FeedReader
from tests.gateways import GatewayUnderTest, key, running_gateway, with_keys
from tests.own_topics import records_of
from tests.stacks import RunningStack
from tests.waiting import until
from tests.world import World, own_world

pytestmark = pytest.mark.integration

READ = key("shop", KeyUse.READ)
HEARTBEAT = "0.2"


@pytest.fixture(scope="module")
def world(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with own_world(stack, tmp_path_factory.mktemp("live"), {"shop": with_keys("shop", tier="t30")}) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[GatewayUnderTest]:
    with live_gateway(world) as made:
        yield made


def live_gateway(world: World) -> Any:
    return running_gateway(world, "--only", "read", EVENTSTORE_GATEWAY__LIVE_HEARTBEAT=HEARTBEAT)


numbers = count()


@pytest.fixture
def uid() -> str:
    return f"user {next(numbers)} / {uuid4().hex[:6]}"


def record(uid: str, event: str, tenant: str = "shop", **fields: Any) -> tuple[bytes, bytes]:
    envelope = {"tenant": tenant, "uid": uid, "event": event, "message_id": str(uuid4()),
                "timestamp": time.time_ns() // 1_000_000, "properties": {"of": event}} | fields  # fmt: skip
    return f"{tenant}:{uid}".encode(), msgspec.json.encode(envelope)


def publish(world: World, uid: str, *events: str) -> None:
    world.publish([record(uid, event) for event in events])


def watching(gateway: GatewayUnderTest, uid: str, last_id: str = "", query: str = "") -> FeedReader:
    def ready() -> bool:
        with FeedReader(gateway, "shop", uid, READ) as reader:
            return reader.status == 200

    until(ready, "the feed to have heard of erasures")
    return FeedReader(gateway, "shop", uid, READ, last_id=last_id, query=query)


def test_an_event_is_shown_as_it_is_published(world: World, gateway: GatewayUnderTest, uid: str) -> None:
    with watching(gateway, uid).begun() as reader:
        publish(world, uid, "viewed")
        shown = reader.next()
    assert (shown.kind, shown.data["event"], shown.data["properties"]) == ("message", "viewed", {"of": "viewed"})
    assert set(shown.data) == {"timestamp", "eid", "event", "properties", "context"}


def test_only_what_the_workers_would_store_of_this_user_is_shown(
    world: World, gateway: GatewayUnderTest, uid: str
) -> None:
    double = record(uid, "double")
    with watching(gateway, uid).begun() as reader:
        world.publish([
            record(f"{uid} another", "another's"),
            record(uid, "of another tenant", tenant="nobody"),
            (f"shop:{uid}".encode(), b"no JSON"),
            (f"shop:{uid}".encode(), record(f"{uid} another", "under a wrong key")[1]),
            record(uid, "too old", timestamp=1_000),
            double, double,
            record(uid, "with lines", properties=msgspec.Raw(b'{"a":\n\r1,\n"b": 2}')),
        ])  # fmt: skip
        assert [reader.next().data["event"] for _ in range(2)] == ["double", "with lines"]


def test_what_is_erased_is_not_shown(world: World, gateway: GatewayUnderTest, uid: str) -> None:
    now_ms = time.time_ns() // 1_000_000
    with watching(gateway, uid).begun() as reader:
        table = ErasureTable(world.settings.kafka, world.settings.topics.erasures)
        table.record(Erasure("shop", uid, (now_ms + 60_000) * 1_000, now_ms))
        # the table and the topic are two: published until the erasure has been heard
        until(lambda: _first_shown(world, reader, uid) == "later", "the erasure to be heard")


def _first_shown(world: World, reader: FeedReader, uid: str) -> str:
    """Publishes an event that the erasure covers and one that it does not; the name of the first of them that is shown."""
    later = record(uid, "later", timestamp=time.time_ns() // 1_000_000 + 120_000)
    world.publish([record(uid, "erased"), later])
    first = reader.next().data["event"]
    if first != "later":
        assert reader.next().data["event"] == "later"
    return str(first)


def test_a_reader_goes_on_at_another_gateway_without_a_gap_or_a_double(world: World, uid: str) -> None:
    with live_gateway(world) as first:
        with watching(first, uid).begun() as reader:
            publish(world, uid, "1", "2", "3")
            shown = [reader.next().data["event"] for _ in range(2)]
            place = reader.last_id
        first.process.send_signal(signal.SIGKILL)
    publish(world, uid, "4", "5")
    with live_gateway(world) as second, watching(second, uid, place) as again:
        shown += [again.next().data["event"] for _ in range(3)]
        publish(world, uid, "6")
        shown.append(again.next().data["event"])
    assert shown == ["1", "2", "3", "4", "5", "6"]


def test_a_quiet_readers_place_moves_on(world: World, gateway: GatewayUnderTest, uid: str) -> None:
    with watching(gateway, uid).begun() as reader:
        began = reader.last_id
        other = next(n for n in count() if partition_of(f"shop:{n}".encode(), 4) == int(began.split(".")[0]))
        publish(world, str(other), "another's")
        until(lambda: reader._block() is None and reader.last_id != began, "a mark further on")


def test_a_place_out_of_reach_is_told(world: World, gateway: GatewayUnderTest, uid: str) -> None:
    partition = partition_of(f"shop:{uid}".encode(), 4)
    publish(world, uid, "before")
    with watching(gateway, uid, f"{(partition + 1) % 4}.0") as reader:
        assert reader.next().kind == "reset"
        assert reader.next().data["event"] == "before"  # no worker has stored it yet: the timeline cannot have it
        publish(world, uid, "after")
        assert reader.next().data["event"] == "after"


def test_a_place_beyond_the_end_is_of_another_topic(world: World, gateway: GatewayUnderTest, uid: str) -> None:
    partition = partition_of(f"shop:{uid}".encode(), 4)
    publish(world, uid, "before")
    with watching(gateway, uid, f"{partition}.999999999") as reader:
        assert reader.next().kind == "reset"
        assert reader.next().data["event"] == "before"


def test_a_reader_can_begin_with_what_the_timeline_may_lack(world: World, gateway: GatewayUnderTest, uid: str) -> None:
    publish(world, uid, "not stored")
    with watching(gateway, uid, query="?from=stored") as reader:
        assert reader.next().data["event"] == "not stored"


def test_a_slow_reader_is_let_go_of_and_finds_everything_when_he_comes_back(
    world: World, gateway: GatewayUnderTest, uid: str
) -> None:
    """Beside him one who reads is shown everything as it comes. What is on its way to the slow one fills the buffers of two
    kernels and of the server first: eight megabytes and more.
    """
    many, big = 600, 30_000 * "x"
    read: list[str] = []

    def keep_up(reader: FeedReader) -> None:
        read.extend(reader.next().data["event"] for _ in range(many))

    with watching(gateway, uid).begun() as slow, watching(gateway, uid).begun() as quick:
        reading = Thread(target=keep_up, args=(quick,))
        reading.start()
        for start in range(0, many, 20):
            world.publish([record(uid, str(n), properties={"big": big}) for n in range(start, start + 20)])
            until(lambda start=start: len(read) == start + 20, "the reader who keeps up")  # type: ignore[misc]
        reading.join()
        assert read == [str(n) for n in range(many)]
        shown = [each.data["event"] for each in slow.rest()]
        place = slow.last_id
    assert len(shown) < many
    while len(shown) < many:  # what he missed comes in parts
        with FeedReader(gateway, "shop", uid, READ, last_id=place) as again:
            for each in again.rest():
                shown.append(each.data["event"])
                if len(shown) == many:
                    break
            place = again.last_id
    assert shown == [str(n) for n in range(many)]


def test_a_key_that_is_revoked_ends_its_feeds(stack: RunningStack, world: World, uid: str) -> None:
    world.edit_registry(gone=with_keys("gone", tier="t15"))
    mine, opened = key("gone", KeyUse.READ), live_gateway(world)
    with opened as gateway, watching(gateway, uid), FeedReader(gateway, "gone", uid, mine).begun() as reader:
        world.edit_registry(gone={"tier": "t15"})
        gateway.process.send_signal(signal.SIGHUP)
        assert reader.ended()


def test_without_kafka_a_feed_is_told_to_come_again(world: World, uid: str) -> None:
    with running_gateway(world, "--only", "read", EVENTSTORE_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1") as gateway:
        answer = gateway.ask("GET", f"/v1/tenants/shop/users/{quote(uid, safe='')}/live", key=READ)
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")


def test_a_gateway_that_stops_ends_its_feeds_at_once(world: World, uid: str) -> None:
    with live_gateway(world) as gateway, watching(gateway, uid).begun() as reader:
        assert gateway.terminate() == 0
        assert reader.ended()


def test_keys_are_found_on_the_partition_where_our_producers_put_them(world: World) -> None:
    keys = [f"shop:{'ключ'[: n % 5]}{n}" for n in range(100)]
    world.publish([(each.encode(), b"{}") for each in keys])
    found = {record.key: record.partition for record in records_of(world.settings.kafka, world.settings.topics.events)}
    assert {each: found[each.encode()] for each in keys} == {each: partition_of(each.encode(), 4) for each in keys}


@pytest.mark.parametrize(
    ("query", "told"), [("?from=then", "from"), ("?last_event_id=9", "last-event-id"), ("?x=1", "x")]
)
def test_a_wrong_question_is_told(gateway: GatewayUnderTest, query: str, told: str) -> None:
    answer = gateway.ask("GET", f"/v1/tenants/shop/users/u/live{query}", key=READ)
    assert (answer.status, answer.json["detail"].split(":")[0]) == (400, told)


def test_only_the_partitions_of_watched_users_are_read_and_only_while_they_are_watched(world: World) -> None:
    async def scenario() -> None:
        async with Tail(world.settings.kafka, world.settings.topics.events) as tail:
            first, second = await asyncio.gather(tail.watch(b"shop:a"), tail.watch(b"shop:a"))
            other = await tail.watch(f"shop:{on_another_partition(first.partition)}".encode())
            assert await followed(tail) == {first.partition, other.partition}
            tail.leave(first)
            tail.leave(other)
            assert await followed(tail) == {second.partition}
            await asyncio.to_thread(world.publish, [record("a", "still heard")])
            (heard,) = await second.take(30)
            assert b"still heard" in (heard.value() or b"")
            tail.leave(second)
            assert await followed(tail) == set()

    asyncio.run(scenario())


def on_another_partition(partition: int) -> int:
    return next(n for n in count() if partition_of(f"shop:{n}".encode(), 4) != partition)


async def followed(tail: Tail) -> set[int]:
    """What the client is assigned; asked on its own thread, which keeps others waiting."""
    assert tail._follower is not None
    follower, answer = tail._follower, Future[set[int]]()
    follower._wanted.put(lambda: answer.set_result({place.partition for place in follower._consumer.assignment()}))
    return await asyncio.wrap_future(answer)
