"""The reader against servers that play what a real one shows only when it breaks, and what only ScyllaDB does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from struct import Struct
from typing import Any
from uuid import UUID

import msgspec
import pytest
from cassandra import cqltypes
from cassandra.cqltypes import DateType, Int32Type, ListType, UTF8Type, UUIDType

from eventstore.config import ReaderSettings
from eventstore.errors import PermanentStoreError, TransientStoreError
from eventstore.events.stored import Partition, Position, Slice, StoredEvent
from eventstore.store.lane.read_lane import ReadLane
from eventstore.store.reader import EventReader
from eventstore.store.session import connect
from tests.builders import NOW_MS, cluster
from tests.cql_values import integer, short, text
from tests.fake_cql import FakeRing, Write, fake_ring
from tests.loops import on_event_loop
from tests.waiting import eventually

pytestmark = pytest.mark.integration

CONNECT_SECONDS = 5.0
SOON = 0.5
"""A request's time-out where a test waits for it."""
OVERLOADED, INVALID = 0x1001, 0x2200
PART = Slice("shop", "u1", 1, 0, Position(NOW_MS))
EID = UUID(int=7)


@asynccontextmanager
async def reader_of(ring: FakeRing, request_timeout: float = CONNECT_SECONDS) -> AsyncIterator[EventReader]:
    to = cluster("fake", contact_points=(ring.nodes[0].address,), port=ring.port)
    session = await asyncio.to_thread(connect, to, request_timeout=CONNECT_SECONDS)
    reader = await EventReader.open(to, session, ReaderSettings(request_timeout=request_timeout))
    try:
        await eventually(lambda: _complete(reader, len(ring.nodes)), "all lanes")
        yield reader
    finally:
        await reader.close()


def _complete(reader: EventReader, nodes: int) -> bool:
    known = reader.nodes.by_host.values()
    return len(known) == nodes and all(len(node.lanes) == node.shards for node in known)


def row(number: int) -> list[bytes | None]:
    return [Struct(">q").pack(number), EID.bytes, b"viewed", b'{"n":1}', b"{}"]


def event(number: int) -> StoredEvent:
    return StoredEvent(number, EID, "viewed", msgspec.Raw(b'{"n":1}'), msgspec.Raw(b"{}"))


def give(*numbers: int) -> Callable[[Write], None]:
    return lambda read: read.give(5, [row(number) for number in numbers])


@on_event_loop
async def test_pages_cut_short_or_empty_are_followed_to_the_end() -> None:
    pages = {None: ([row(3), row(2)], b"one"), b"one": ([], b"two"), b"two": ([row(1)], None)}
    async with fake_ring() as ring, reader_of(ring) as reader:
        ring.nodes[0].on_write = lambda read: read.give(5, *pages[read.asks_behind()])
        assert await reader.read(PART, None, 10) == [event(3), event(2), event(1)]
        assert len(ring.nodes[0].writes) == 3


@on_event_loop
async def test_a_read_reaches_a_replica_and_the_shard_that_holds_the_partition() -> None:
    async with fake_ring(nodes=3, shards=2, shard_aware=True) as ring, reader_of(ring) as reader:
        for node in ring.nodes:
            node.on_write = lambda read: read.give(3, [])
        for number in range(60):
            await reader.seen(Partition(f"u{number}", "shop", 1), ["p"])
        shards = [{read.shard for read in node.writes} for node in ring.nodes]
        assert shards == [{0, 1}] * 3
        again = [(node, len(node.writes)) for node in ring.nodes]
        await reader.seen(Partition("u1", "shop", 1), ["p"])
        await reader.seen(Partition("u1", "shop", 1), ["p"])
        assert sorted(len(node.writes) - before for node, before in again) == [0, 0, 2]


@on_event_loop
async def test_tablets_that_nodes_tell_of_are_followed() -> None:
    async with fake_ring(nodes=2, shards=2, extensions=True, shard_aware=True) as ring, reader_of(ring) as reader:
        _, holder = ring.nodes
        kind = cqltypes.lookup_casstype("TupleType(LongType, LongType, ListType(TupleType(UUIDType, Int32Type)))")
        tablet = kind.to_binary((-(2**63), 2**63 - 1, [(holder.host_id, 1)]), 4)
        payload = short(1) + text("tablets-routing-v1") + integer(len(tablet)) + tablet
        for node in ring.nodes:
            node.on_write = lambda read: read.give(5, [row(1)], flags=0x04, before=payload)
        assert await reader.read(PART, None, 1) == [event(1)]
        holder.writes.clear()
        for number in range(20):
            await reader.read(PART._replace(uid=f"u{number}"), None, 1)
        assert [read.shard for read in holder.writes] == [1] * 20


@on_event_loop
async def test_statements_that_the_node_has_forgotten_are_prepared_once_for_all_reads() -> None:
    async with fake_ring() as ring, reader_of(ring) as reader:
        (node,) = ring.nodes
        node.on_write = give(1)
        before = node.prepares
        node.prepared.clear()
        answers = await asyncio.gather(*(reader.read(PART, None, 1) for _ in range(20)))
        assert answers == [[event(1)]] * 20
        assert node.unprepared > 1
        assert node.prepares - before == len(ReadLane.statements)


@on_event_loop
async def test_a_table_dropped_under_the_reader_is_permanent() -> None:
    async with fake_ring() as ring, reader_of(ring) as reader:
        (node,) = ring.nodes
        node.refusal = (INVALID, "unconfigured table events")
        node.prepared.clear()
        answers = await asyncio.gather(*(reader.read(PART, None, 1) for _ in range(5)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [PermanentStoreError] * 5
        assert "unconfigured table events" in str(answers[0])


@on_event_loop
async def test_a_lost_connection_fails_what_is_on_its_way_and_is_made_again() -> None:
    async with fake_ring() as ring, reader_of(ring) as reader:
        (node,) = ring.nodes
        node.on_write = lambda _: None
        waiting = [asyncio.create_task(reader.read(PART, None, 1)) for _ in range(5)]
        await eventually(lambda: len(node.writes) == 5, "the reads")
        node.cut()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(answer) for answer in answers] == [TransientStoreError] * 5
        assert answers[0] is not answers[1]
        node.on_write = give(1)
        await eventually(lambda: _complete(reader, 1), "the lane")
        assert await reader.read(PART, None, 1) == [event(1)]


@on_event_loop
async def test_without_any_node_a_read_fails_at_once_and_says_why() -> None:
    async with fake_ring() as ring, reader_of(ring) as reader:
        ring.nodes[0].stop()
        await eventually(lambda: not reader.nodes.lanes, "the loss to be seen")
        with pytest.raises(TransientStoreError, match="no node of datacenter dc1 is connected"):
            await reader.read(PART, None, 1)


@on_event_loop
async def test_a_slow_read_times_out_alone() -> None:
    """The node says that it is there; its late answer frees the stream and is nobody else's."""
    async with fake_ring() as ring, reader_of(ring, SOON) as reader:
        (node,) = ring.nodes
        (lane,) = reader.nodes.lanes
        node.on_write = lambda _: None
        with pytest.raises(TransientStoreError, match=r"did not answer within 0\.5 s"):
            await reader.read(PART, None, 1)
        assert reader.nodes.lanes == [lane]
        assert lane.load == 1
        (late,) = node.writes
        late.give(5, [row(9)])
        await eventually(lambda: lane.load == 0, "the late answer")
        node.on_write = give(1)
        assert await reader.read(PART, None, 1) == [event(1)]


@on_event_loop
async def test_a_node_that_says_nothing_is_given_up() -> None:
    async with fake_ring() as ring, reader_of(ring, SOON) as reader:
        (node,) = ring.nodes
        (lane,) = reader.nodes.lanes
        node.on_write, node.deaf = (lambda _: None), True
        with pytest.raises(TransientStoreError, match=r"did not answer within 0\.5 s"):
            await reader.read(PART, None, 1)
        assert lane not in reader.nodes.lanes


@on_event_loop
async def test_a_read_that_is_given_up_disturbs_nobody() -> None:
    async with fake_ring() as ring, reader_of(ring) as reader:
        (node,) = ring.nodes
        node.on_write = lambda _: None
        given_up = asyncio.create_task(reader.read(PART, None, 1))
        await eventually(lambda: len(node.writes) == 1, "the read")
        given_up.cancel()
        node.on_write = give(1)
        assert await reader.read(PART, None, 1) == [event(1)]
        node.writes[0].give(5, [row(9)])
        assert await reader.read(PART, None, 1) == [event(1)]
        assert [lane.load for lane in reader.nodes.lanes] == [0]


@pytest.mark.parametrize(("code", "kind"), [(OVERLOADED, TransientStoreError), (INVALID, PermanentStoreError)])
@on_event_loop
async def test_a_refusal_is_told_as_what_it_is(code: int, kind: type[Exception]) -> None:
    async with fake_ring() as ring, reader_of(ring) as reader:
        ring.nodes[0].on_write = lambda read: read.refuse(code)
        with pytest.raises(kind, match="as the test asked for"):
            await reader.read(PART, None, 1)


@on_event_loop
async def test_answers_as_large_as_many_packets_and_out_of_order_find_their_reads() -> None:
    large = msgspec.json.encode({"text": "x" * 3_000_000})
    async with fake_ring() as ring, reader_of(ring) as reader:
        (node,) = ring.nodes
        node.on_write = lambda _: None
        reads = [asyncio.create_task(reader.read(PART, None, 1)) for _ in range(3)]
        await eventually(lambda: len(node.writes) == 3, "the reads")
        for number, read in reversed(list(enumerate(node.writes))):
            read.give(5, [[*row(number)[:3], large, b"{}"]])
        found = [event for [event] in await asyncio.gather(*reads)]
        assert [each.timestamp for each in found] == [0, 1, 2]
        assert all(bytes(each.properties) == large for each in found)


@on_event_loop
async def test_more_reads_than_a_lane_numbers_at_once_are_all_answered() -> None:
    async with fake_ring() as ring, reader_of(ring) as reader:
        (node,) = ring.nodes
        node.on_write = lambda _: None
        reads = [asyncio.create_task(reader.read(PART, None, 1)) for _ in range(1_000)]
        await eventually(lambda: len(node.writes) == 1_000, "the reads")
        assert len({read.stream for read in node.writes}) == 1_000
        for number, read in enumerate(node.writes):
            read.give(5, [row(number)])
        assert await asyncio.gather(*reads) == [[event(number)] for number in range(1_000)]


@on_event_loop
async def test_an_answer_that_is_none_is_the_nodes_fault() -> None:
    async with fake_ring() as ring, reader_of(ring) as reader:
        ring.nodes[0].on_write = Write.acknowledge
        with pytest.raises(PermanentStoreError, match="expected rows of 5 columns"):
            await reader.read(PART, None, 1)


NAMES = ListType.apply_parameters([UTF8Type])
KEY = ((UTF8Type, "u1"), (UTF8Type, "shop"), (Int32Type, 1))
NARROW = PART._replace(since_ms=5, before=Position(NOW_MS, EID))
WHOLE = ((DateType, 5), (UUIDType, UUID(int=0)), (DateType, NOW_MS), (UUIDType, EID))
MOMENT = ((DateType, NOW_MS), (UUIDType, EID), (UTF8Type, "größe"))
OLDER = ((DateType, 5), (DateType, NOW_MS), (UTF8Type, "größe"))
LIMIT = ((Int32Type, 9),)
SEEN = Partition("u1", "shop", 1)
QUESTIONS: dict[str, tuple[Callable[[EventReader], Awaitable[object]], int, list[tuple[tuple[Any, Any], ...]]]] = {
    "a slice": (lambda reader: reader.read(NARROW, None, 9), 5, [KEY + WHOLE + LIMIT]),
    "a slice by name": (
        lambda reader: reader.read(NARROW, "größe", 9), 5, [KEY + MOMENT + LIMIT, KEY + OLDER + LIMIT]
    ),
    "a count": (lambda reader: reader.count(NARROW, None), 1, [KEY + WHOLE]),
    "a count by name": (lambda reader: reader.count(NARROW, "größe"), 1, [KEY + MOMENT, KEY + OLDER]),
    "newest events": (
        lambda reader: reader.latest("shop", "u1", ["a", "größe"]), 1, [(*KEY[:2], (NAMES, ["a", "größe"]))]
    ),
    "seen posts": (lambda reader: reader.seen(SEEN, ["p", "ß"]), 3, [(*KEY, (NAMES, ["p", "ß"]))]),
    "a page of posts": (lambda reader: reader.posts(SEEN, "ß", 9), 3, [(*KEY, (UTF8Type, "ß"), *LIMIT)]),
}  # fmt: skip
"""How it is asked, the columns of its answer, and what each of its statements binds."""


@pytest.mark.parametrize("name", QUESTIONS)
@on_event_loop
async def test_a_question_binds_what_the_driver_would(name: str) -> None:
    ask, columns, bound = QUESTIONS[name]
    async with fake_ring() as ring, reader_of(ring) as reader:
        (node,) = ring.nodes
        node.on_write = lambda read: read.give(columns, [])
        await ask(reader)
        assert [read.rows() for read in node.writes] == [
            [[kind.serialize(value, 4) for kind, value in values]] for values in bound
        ]
