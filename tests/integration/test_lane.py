"""The lane against servers that play what a real one shows only when it breaks, and what only ScyllaDB does."""

import asyncio
import gc
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cassandra import cqltypes
from cassandra.metadata import Murmur3Token

from eventstore.errors import PermanentStoreError, StoreError, TransientStoreError
from eventstore.events.cells import STATEMENTS, Batch
from eventstore.store.driver_writer import DriverWriter
from eventstore.store.lane import handshake
from eventstore.store.lane.frames import HEADER
from eventstore.store.lane.line import Line
from eventstore.store.lane.writer import LaneWriter
from eventstore.store.session import connect
from eventstore.store.writer import EventWriter, Failure
from eventstore.tenancy import Cluster, Credentials, TlsFiles
from tests.authority import Authority
from tests.builders import batch, cluster, row
from tests.cql_values import integer, short, text
from tests.fake_cql import IGNORED_BITS, RATE_LIMITED, FakeNode, FakeRing, Write, fake_ring, free_port
from tests.loops import on_event_loop
from tests.waiting import eventually

pytestmark = pytest.mark.integration

CONNECT_SECONDS = 5.0
SOON = 0.5
"""A request's time-out where a test waits for it."""
LOCAL_QUORUM = short(6)
INVALID, OVERLOADED, UNAVAILABLE, WRITE_TIMEOUT = 0x2200, 0x1001, 0x1000, 0x1100


def of(ring: FakeRing, **fields: Any) -> Cluster:
    return cluster("fake", contact_points=(ring.nodes[0].address,), port=ring.port, **fields)


async def open_lane(to: Cluster, in_flight: int, request_timeout: float) -> LaneWriter:
    session = await asyncio.to_thread(connect, to, request_timeout=CONNECT_SECONDS)
    return await LaneWriter.open(to, session, in_flight, request_timeout)


async def open_driver(to: Cluster, in_flight: int, request_timeout: float) -> DriverWriter:
    session = await asyncio.to_thread(connect, to, request_timeout=request_timeout)
    return await DriverWriter.open(to, session, in_flight)


@asynccontextmanager
async def lane(
    to: Cluster, in_flight: int = 256, request_timeout: float = CONNECT_SECONDS
) -> AsyncIterator[LaneWriter]:
    """A writer whose every lane is connected."""
    writer = await open_lane(to, in_flight, request_timeout)
    try:
        await connected(writer, len(writer.nodes.by_host))
        yield writer
    finally:
        await writer.close()


async def connected(writer: LaneWriter, nodes: int) -> None:
    """All shards of that many nodes have their lane."""

    def complete() -> bool:
        return len(writer.nodes.by_host) == nodes and all(
            len(node.lanes) == node.shards for node in writer.nodes.by_host.values()
        )

    await eventually(complete, f"lanes to {nodes} nodes")


def batches(number: int) -> list[Batch]:
    return [batch(*(row(uid=f"u{each}", number=n) for n in range(1 + each % 3))) for each in range(number)]


def token(write: Write) -> int:
    uid, tenant, bid = write.rows()[0][:3]
    key = b"".join(short(len(part)) + part + b"\0" for part in (uid, tenant, bid))
    return int(Murmur3Token.hash_fn(key))


def shard(token: int, shards: int) -> int:
    """ScyllaDB's rule: the token's place in the ring, less its highest bits, decides."""
    return (((token + 2**63) << IGNORED_BITS) % 2**64) * shards >> 64


def owner(ring: FakeRing, token: int) -> FakeNode:
    tokens = sorted((each, node) for node in ring.nodes for each in node.tokens)
    return tokens[bisect_left([each for each, _ in tokens], token) % len(tokens)][1]


def stored(nodes: list[FakeNode]) -> set[bytes]:
    return {write.rows()[0][0] for node in nodes for write in node.writes}


def permanent(failures: list[Failure]) -> list[bool]:
    return [isinstance(failure.error, PermanentStoreError) for failure in failures]


# ---------------------------------------------------------------------------------------------------------- routing


@pytest.mark.parametrize("shard_port", ["open", "none", "blocked by a firewall"])
@on_event_loop
async def test_every_batch_reaches_the_shard_that_owns_it(shard_port: str) -> None:
    async with fake_ring(nodes=2, shards=3, shard_aware=shard_port == "open") as ring:
        if shard_port.startswith("blocked"):
            for node in ring.nodes:
                node.shard_aware_port = free_port()
        async with lane(of(ring)) as writer:
            assert list(await writer.write(batches(200))) == []
        for node in ring.nodes:
            assert {write.shard for write in node.writes} == {0, 1, 2}
            for write in node.writes:
                assert owner(ring, token(write)) is node
                assert write.shard == shard(token(write), 3)


@on_event_loop
async def test_every_batch_reaches_a_replica() -> None:
    async with fake_ring(nodes=4) as ring, lane(of(ring)) as writer:
        assert list(await writer.write(batches(300))) == []
        assert all(owner(ring, token(write)) is node for node in ring.nodes for write in node.writes)
        assert len(stored(ring.nodes)) == 300


@on_event_loop
async def test_replicas_share_by_what_is_on_its_way() -> None:
    async with fake_ring(nodes=2, replication=2) as ring, lane(of(ring)) as writer:
        slow, quick = ring.nodes
        owed: list[Write] = []
        slow.on_write = owed.append
        waiting = asyncio.create_task(_all(writer.write(batches(40))))
        await eventually(lambda: len(quick.writes) == 20, "half of the batches")
        assert len(slow.writes) == 20
        assert list(await writer.write(batches(20))) == []  # none of these waits for the slow one
        for write in owed:
            write.acknowledge()
        assert await waiting == []


async def _all(write: Any) -> list[Failure]:
    return list(await write)


@on_event_loop
async def test_tablets_that_nodes_tell_of_are_followed() -> None:
    async with fake_ring(nodes=2, shards=2, extensions=True, shard_aware=True) as ring, lane(of(ring)) as writer:
        _, holder = ring.nodes
        kind = cqltypes.lookup_casstype("TupleType(LongType, LongType, ListType(TupleType(UUIDType, Int32Type)))")
        tablet = kind.to_binary((-(2**63), 2**63 - 1, [(holder.host_id, 1)]), 4)
        payload = short(1) + text("tablets-routing-v1") + integer(len(tablet)) + tablet
        for node in ring.nodes:
            node.on_write = lambda write: write.acknowledge(flags=0x04, before=payload)
        assert list(await writer.write(batches(1))) == []
        for node in ring.nodes:
            node.writes.clear()
        assert list(await writer.write(batches(50))) == []
        assert [write.shard for write in holder.writes] == [1] * 50
        # a node that leaves takes its tablets along
        writer.nodes.router.forget(holder.host_id)
        holder.writes.clear()
        assert list(await writer.write(batches(1))) == []
        assert len({id(node) for node in ring.nodes if node.writes}) == 1


# ---------------------------------------------------------------------------------------------------- both writers


@pytest.fixture(params=["driver", "lane"])
def open_writer(request: pytest.FixtureRequest) -> Callable[[Cluster, int, float], Any]:
    return {"driver": open_driver, "lane": open_lane}[request.param]


@asynccontextmanager
async def opened(open_writer: Callable[[Cluster, int, float], Any], to: Cluster, in_flight: int = 256,
                 request_timeout: float = CONNECT_SECONDS) -> AsyncIterator[EventWriter]:  # fmt: skip
    writer = await open_writer(to, in_flight, request_timeout)
    try:
        yield writer
    finally:
        await writer.close()


REFUSALS = {
    "overloaded": (OVERLOADED, b"", False),
    "too few replicas": (UNAVAILABLE, LOCAL_QUORUM + integer(2) + integer(1), False),
    "replicas late": (WRITE_TIMEOUT, LOCAL_QUORUM + integer(1) + integer(2) + text("SIMPLE"), False),
    "replicas failed": (0x1500, LOCAL_QUORUM + integer(1) + integer(2) + integer(1) + text("SIMPLE"), False),
    "an internal fault": (0x0000, b"", False),
    "still starting": (0x1002, b"", False),
    "limited": (RATE_LIMITED, b"\0\1", False),
    "bad syntax": (0x2000, b"", True),
    "not allowed": (0x2100, b"", True),
    "invalid": (INVALID, b"", True),
}


@pytest.mark.parametrize("why", REFUSALS)
@on_event_loop
async def test_what_can_pass_is_told_from_what_cannot(open_writer: Any, why: str) -> None:
    code, more, lasting = REFUSALS[why]
    async with fake_ring(shards=1, extensions=True) as ring, opened(open_writer, of(ring)) as writer:
        ring.nodes[0].on_write = lambda write: write.refuse(code, more=more)
        asked = batches(3)
        failures = list(await writer.write(asked))
        assert [failure.batch for failure in failures] == asked
        assert permanent(failures) == [lasting] * 3


@on_event_loop
async def test_no_more_is_on_its_way_than_allowed(open_writer: Any) -> None:
    async with fake_ring() as ring, opened(open_writer, of(ring), in_flight=5) as writer:
        (node,) = ring.nodes
        owed: list[Write] = []
        node.on_write = owed.append
        write = asyncio.create_task(_all(writer.write(batches(30))))
        while len(node.writes) < 30:
            await eventually(lambda: bool(owed), "the next batches")
            assert len(owed) <= 5
            owed.pop(0).acknowledge()
        for late in owed:
            late.acknowledge()
        assert await write == []


@on_event_loop
async def test_a_node_that_does_not_answer_delays_no_longer_than_allowed(open_writer: Any) -> None:
    async with fake_ring() as ring, opened(open_writer, of(ring), in_flight=5, request_timeout=SOON) as writer:
        (node,) = ring.nodes
        node.on_write = lambda _: None
        asked = batches(30)
        failures = list(await asyncio.wait_for(writer.write(asked), 10 * SOON))
        assert sorted(id(failure.batch) for failure in failures) == sorted(map(id, asked))
        assert permanent(failures) == [False] * 30


@on_event_loop
async def test_a_caller_that_leaves_does_no_harm(open_writer: Any) -> None:
    async with fake_ring() as ring, opened(open_writer, of(ring), in_flight=5) as writer:
        (node,) = ring.nodes
        owed: list[Write] = []
        node.on_write = owed.append
        write = asyncio.create_task(_all(writer.write(batches(5))))
        await eventually(lambda: len(owed) == 5, "the batches")
        write.cancel()
        for late in owed:
            late.refuse(OVERLOADED)
        node.on_write = lambda write: write.acknowledge()
        assert list(await writer.write(batches(10))) == []  # the window is free again
        gc.collect()  # an answer that nobody heard would be told of now


@on_event_loop
async def test_forgotten_statements_are_prepared_again(open_writer: Any) -> None:
    async with fake_ring() as ring, opened(open_writer, of(ring)) as writer:
        (node,) = ring.nodes
        assert list(await writer.write(batches(1))) == []
        node.prepared.clear()
        assert list(await writer.write(batches(200))) == []
        assert node.unprepared > 0
        assert len(stored([node])) == 200


@on_event_loop
async def test_a_login_is_given(open_writer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_PASSWORD", "grüße")
    who = Credentials("writer", password_env="FAKE_PASSWORD")
    async with fake_ring(login=("writer", "grüße")) as ring, opened(open_writer, of(ring, credentials=who)) as writer:
        assert list(await writer.write(batches(3))) == []


@on_event_loop
async def test_a_server_s_certificate_is_checked(open_writer: Any, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "127.0.4.1")
    async with fake_ring(tls=authority.server_context()) as ring:
        trusting = of(ring, tls=TlsFiles(ca=authority.certificate))
        async with opened(open_writer, trusting) as writer:
            assert list(await writer.write(batches(100))) == []
        (tmp_path / "other").mkdir()
        stranger = of(ring, tls=TlsFiles(ca=Authority(tmp_path / "other", "127.0.4.1").certificate))
        with pytest.raises(PermanentStoreError, match=r"mend tls of clusters\.fake"):
            await open_writer(stranger, 1, CONNECT_SECONDS)


# ------------------------------------------------------------------------------------------------ nodes that trouble us


@on_event_loop
async def test_a_connection_lost_with_its_last_answer_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = handshake.prepare
    lost: list[Line] = []

    async def prepare_and_lose(line: Line, keyspace: str) -> None:
        await prepare(line, keyspace)
        if not lost:
            lost.append(line)
            line.close(TransientStoreError("gone before anybody looked at the answer"))

    async with fake_ring() as ring, lane(of(ring), request_timeout=SOON) as writer:
        (node,) = ring.nodes
        monkeypatch.setattr(handshake, "prepare", prepare_and_lose)
        node.cut()
        await eventually(lambda: bool(lost), "a second connection, lost")
        await eventually(lambda: not set(lost) & set(writer.nodes.lanes), "it to be known as lost")
        await connected(writer, 1)
        assert list(await writer.write(batches(10))) == []


@on_event_loop
async def test_a_silent_node_is_connected_anew() -> None:
    async with fake_ring() as ring, lane(of(ring), request_timeout=SOON) as writer:
        (node,) = ring.nodes
        node.on_write = lambda _: None
        (first,) = writer.nodes.lanes
        assert permanent(list(await writer.write(batches(1)))) == [False]
        node.on_write = lambda write: write.acknowledge()
        await connected(writer, 1)
        assert writer.nodes.lanes != [first]
        assert list(await writer.write(batches(3))) == []


@on_event_loop
async def test_a_connection_lost_in_mid_frame_fails_each_batch_once() -> None:
    async with fake_ring() as ring, lane(of(ring)) as writer:
        (node,) = ring.nodes

        def half_an_answer(write: Write) -> None:
            if len(node.writes) <= 10:
                write.acknowledge()
            elif len(node.writes) == 11:
                write.connection.transport.write(HEADER.pack(0x84, 0, write.stream, 8, 4) + b"\0")
                write.connection.transport.close()

        node.on_write = half_an_answer
        asked = batches(50)
        failures = list(await writer.write(asked))
        assert permanent(failures) == [False] * len(failures)
        failed = {id(failure.batch) for failure in failures}
        assert len(failed) == len(failures)
        assert {id(batch) for batch in asked[10:]} <= failed  # the first ten answers may have been lost with the rest
        await connected(writer, 1)


@on_event_loop
async def test_while_all_nodes_are_down_writing_fails_at_once_and_says_why() -> None:
    async with fake_ring() as ring, lane(of(ring)) as writer:
        (node,) = ring.nodes
        node.stop()
        await eventually(lambda: not writer.nodes.lanes, "the loss to be seen")
        await eventually(lambda: "refused" in str(writer.nodes.unreachable()), "an attempt to connect")
        (failure,) = await writer.write(batches(1))
        assert isinstance(failure.error, TransientStoreError)
        assert "no node of datacenter dc1 is connected" in str(failure.error)
        assert "refused" in str(failure.error)
        await node.start()
        await connected(writer, 1)
        assert list(await writer.write(batches(1))) == []


@pytest.mark.parametrize("change", ["table dropped", "password changed"])
@on_event_loop
async def test_a_node_that_refuses_us_after_its_restart_ends_the_write(change: str) -> None:
    async with fake_ring() as ring, lane(of(ring)) as writer:
        (node,) = ring.nodes
        node.stop()
        if change == "table dropped":
            node.refusal = (INVALID, "unconfigured table events")
        else:
            node.login = ("writer", "another")
        await node.start()
        await eventually(lambda: isinstance(writer.nodes.unreachable(), PermanentStoreError), "the refusal")
        (failure,) = await writer.write(batches(1))
        assert isinstance(failure.error, PermanentStoreError)


@on_event_loop
async def test_a_table_dropped_under_the_writer_ends_the_write() -> None:
    async with fake_ring() as ring, lane(of(ring)) as writer:
        (node,) = ring.nodes
        node.refusal = (INVALID, "unconfigured table events")
        node.prepared.clear()
        failures = list(await writer.write(batches(5)))
        assert permanent(failures) == [True] * 5
        assert "unconfigured table events" in str(failures[0].error)


@on_event_loop
async def test_statements_forgotten_by_many_frames_are_prepared_once() -> None:
    async with fake_ring() as ring, lane(of(ring)) as writer:
        (node,) = ring.nodes
        before = node.prepares
        node.prepared.clear()
        assert list(await writer.write(batches(60))) == []
        assert node.unprepared > 1
        assert node.prepares - before == len(STATEMENTS)


@on_event_loop
async def test_writing_goes_on_without_a_node_and_with_it_again() -> None:
    async with fake_ring(nodes=2, replication=2) as ring, lane(of(ring)) as writer:
        dies, lives = ring.nodes[1], ring.nodes[0]
        dies.stop()
        await eventually(lambda: len(writer.nodes.lanes) == 1, "the loss to be seen")
        assert list(await writer.write(batches(20))) == []
        assert len(lives.writes) == 20
        await dies.start()
        await connected(writer, 2)
        assert list(await writer.write(batches(20))) == []
        assert len(dies.writes) == 10


@on_event_loop
async def test_a_node_that_is_away_at_the_start_is_connected_when_it_comes() -> None:
    async with fake_ring(nodes=2, replication=2) as ring:
        ring.nodes[1].stop()
        writer = await open_lane(of(ring), 64, SOON)
        try:
            assert list(await writer.write(batches(5))) == []
            await ring.nodes[1].start()
            await connected(writer, 2)
        finally:
            await writer.close()


@on_event_loop
async def test_a_node_that_joins_is_used_and_one_that_leaves_is_let_go() -> None:
    async with fake_ring(nodes=2) as ring, lane(of(ring)) as writer:
        joins = ring.add("127.0.4.3")
        await joins.start()
        await asyncio.to_thread(writer.nodes._session.cluster.refresh_nodes, force_token_rebuild=True)
        await connected(writer, 3)
        assert list(await writer.write(batches(200))) == []
        assert all(owner(ring, token(write)) is node for node in ring.nodes for write in node.writes)
        assert joins.writes
        leaves = ring.nodes.pop(1)
        await asyncio.to_thread(writer.nodes._session.cluster.refresh_nodes, force_token_rebuild=True)
        await connected(writer, 2)
        leaves.writes.clear()
        leaves.stop()
        assert list(await writer.write(batches(200))) == []
        assert leaves.writes == []


@on_event_loop
async def test_a_node_that_moved_to_another_address_is_followed() -> None:
    async with fake_ring(nodes=2) as ring, lane(of(ring)) as writer:
        moves = ring.nodes.pop(1)
        moves.stop()
        moved = ring.add("127.0.4.3", host_id=moves.host_id)
        await moved.start()
        await asyncio.to_thread(writer.nodes._session.cluster.refresh_nodes, force_token_rebuild=True)
        await eventually(
            lambda: moved.address in {node.address for node in writer.nodes.by_host.values()}, "the new address"
        )
        await connected(writer, 2)
        assert list(await writer.write(batches(100))) == []
        assert moved.writes


@on_event_loop
async def test_closing_fails_what_is_on_its_way() -> None:
    async with fake_ring() as ring:
        ring.nodes[0].on_write = lambda _: None
        writer = await open_lane(of(ring), 8, CONNECT_SECONDS)
        write = asyncio.create_task(_all(writer.write(batches(20))))
        await eventually(lambda: bool(ring.nodes[0].writes), "the first batch")
        await writer.close()
        assert permanent(await write) == [False] * 20
        assert permanent(list(await writer.write(batches(1)))) == [False]


@on_event_loop
async def test_after_our_own_fault_nothing_is_written_any_more() -> None:
    """The fault: a tablet that the router cannot read. Calls that wait for another node hear of it too."""
    async with fake_ring(nodes=2) as ring, lane(of(ring)) as writer:
        some = batches(40)
        silent = writer.nodes.router.pick(some[0][0], writer.nodes.by_host)
        for node in ring.nodes:
            node.on_write = lambda _: None
        mine = [each for each in some if writer.nodes.router.pick(each[0], writer.nodes.by_host) is silent]
        waiting = asyncio.create_task(_all(writer.write(mine)))
        await eventually(lambda: sum(len(node.writes) for node in ring.nodes) == len(mine), "all at the silent node")
        broken = short(1) + text("tablets-routing-v1") + integer(1) + b"?"
        for node in ring.nodes:
            node.on_write = lambda write: write.acknowledge(flags=0x04, before=broken)
        with pytest.raises(Exception, match=r"unpack|buffer") as bug:
            await writer.write([each for each in some if each not in mine])
        assert not isinstance(bug.value, StoreError)
        for call in (waiting, writer.write(batches(1))):
            with pytest.raises(type(bug.value)):
                await asyncio.wait_for(call, CONNECT_SECONDS / 2)


# ------------------------------------------------------------------------------------------------------ refused at open


@on_event_loop
async def test_a_node_that_never_says_hello_is_transient() -> None:
    async with fake_ring() as ring:
        session = await asyncio.to_thread(connect, of(ring))
        ring.nodes[0].deaf = True
        with pytest.raises(TransientStoreError, match=r"127\.0\.4\.1:\d+ was not ready within 0\.5 s"):
            await LaneWriter.open(of(ring), session, 8, SOON)


LOGINS = {
    "a wrong password": ("Provided username and/or password are incorrect", PermanentStoreError),
    "no quorum for the roles": ("Unable to perform authentication: Operation timed out", TransientStoreError),
}


@pytest.mark.parametrize("why", LOGINS)
@on_event_loop
async def test_a_refused_login_tells_its_mend(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said, kind = LOGINS[why]
    monkeypatch.setenv("FAKE_PASSWORD", "wrong")
    async with fake_ring() as ring:
        to = of(ring)
        session = await asyncio.to_thread(connect, to)
        ring.nodes[0].login, ring.nodes[0].login_refusal = ("writer", "right"), said
        who = replace(to, credentials=Credentials("writer", password_env="FAKE_PASSWORD"))
        with pytest.raises(kind, match="mend username, password_env or password_file"):
            await LaneWriter.open(who, session, 8, SOON)


@on_event_loop
async def test_a_login_that_the_registry_does_not_give_is_asked_for() -> None:
    async with fake_ring() as ring:
        session = await asyncio.to_thread(connect, of(ring))
        ring.nodes[0].login = ("writer", "right")
        with pytest.raises(PermanentStoreError, match="asks for a login and the registry names no username"):
            await LaneWriter.open(of(ring), session, 8, SOON)
