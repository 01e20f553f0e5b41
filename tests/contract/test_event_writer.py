"""What an EventWriter promises, held against both of them on a real server."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from eventstore.config import load_settings
from eventstore.errors import PermanentStoreError, StoreError, TransientStoreError
from eventstore.events.cells import Batch, encode, nothing_beside
from eventstore.events.row import Row
from eventstore.local import lifecycle, process
from eventstore.local.stack import Stack
from eventstore.registry import load_registry
from eventstore.store.driver_writer import DriverWriter
from eventstore.store.lane.writer import LaneWriter
from eventstore.store.schema import apply_schema
from eventstore.store.session import close, connect
from eventstore.store.writer import EventWriter, Failure
from eventstore.tenancy import Cluster, Registry, Tier
from tests.builders import NOW_MS, batch, cluster, latest, row, tier, uid_of
from tests.loops import on_event_loop
from tests.stacks import RunningStack
from tests.waiting import DEADLINE_SECONDS, eventually

pytestmark = pytest.mark.contract

TIMEOUT = 5.0
DDL_SECONDS = 60.0
"""A node that others keep busy answers a CREATE or DROP late."""


async def open_driver(cluster: Cluster, in_flight: int, request_timeout: float) -> EventWriter:
    session = await asyncio.to_thread(connect, cluster, request_timeout=request_timeout)
    return await DriverWriter.open(cluster, session, in_flight)


async def open_lane(cluster: Cluster, in_flight: int, request_timeout: float) -> EventWriter:
    session = await asyncio.to_thread(connect, cluster, request_timeout=request_timeout)
    return await LaneWriter.open(cluster, session, in_flight, request_timeout)


OPEN = {"driver": open_driver, "lane": open_lane}


@asynccontextmanager
async def opened(
    kind: str, on: Cluster, in_flight: int = 64, request_timeout: float = TIMEOUT
) -> AsyncIterator[EventWriter]:
    writer = await OPEN[kind](on, in_flight, request_timeout)
    try:
        yield writer
    finally:
        await writer.close()


@pytest.fixture(params=OPEN)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Table:
    """The table `events` of a keyspace of its own, looked at past the writers."""

    def __init__(self, of: Tier) -> None:
        self.cluster = of.cluster
        self._session = connect(of.cluster, request_timeout=DDL_SECONDS)
        apply_schema(self._session, of)
        self.retention_seconds = of.retention_seconds

    def run(self, cql: str, *values: Any) -> list[Any]:
        return list(self._session.execute(cql, values or None))

    def rows(self, uid: str) -> list[Any]:
        """All cells of a user's rows, oldest first, with the write timestamp and time to live of `event`."""
        cells = "uid, tenant, bid, ts, eid, event, properties, context, WRITETIME(event) AS written, TTL(event) AS ttl"
        found = self.run(f"SELECT {cells} FROM events WHERE uid = %s ALLOW FILTERING", uid)
        return sorted(found, key=lambda row: (row.ts, row.eid))

    def look_anew(self) -> None:
        """After the server's restart."""
        close(self._session)
        self._session = connect(self.cluster, request_timeout=DDL_SECONDS)

    def drop(self) -> None:
        self.run(f"DROP KEYSPACE IF EXISTS {self.cluster.keyspace}")
        close(self._session)


def isolated(of: Tier) -> Tier:
    return replace(of, cluster=replace(of.cluster, keyspace=f"writer_{uuid4().hex[:12]}"))


@pytest.fixture(scope="module")
def table(stack: RunningStack) -> Iterator[Table]:
    made = Table(isolated(load_registry(stack.registry_path).tiers["t15"]))
    yield made
    made.drop()


def cells(row: Row) -> tuple[Any, ...]:
    return (row.uid, row.tenant, row.bid, row.ts_ms, UUID(bytes=row.eid), row.event,
            row.properties.decode(), row.context.decode(), row.write_micros)  # fmt: skip


def read_cells(found: Any) -> tuple[Any, ...]:
    milliseconds = round((found.ts - type(found.ts)(1970, 1, 1)).total_seconds() * 1000)
    return (found.uid, found.tenant, found.bid, milliseconds, found.eid, found.event,
            found.properties, found.context, found.written)  # fmt: skip


def some_batches(uid: str, count: int, rows: int = 3) -> list[Batch]:
    return [batch(*(row(uid=f"{uid}-{number}", number=each) for each in range(rows))) for number in range(count)]


SHAPES: dict[str, Callable[[str], list[Row]]] = {
    "one fresh row": lambda uid: [row(uid=uid)],
    "one late row": lambda uid: [row(uid=uid, ttl_seconds=777_777)],
    "a batch of fresh rows": lambda uid: [row(uid=uid, number=number) for number in range(50)],
    "a batch of fresh and late rows": lambda uid: [
        row(uid=uid, number=number, ttl_seconds=777_777 if number % 2 else None) for number in range(7)
    ],
    "unicode": lambda uid: [
        row(uid=f"{uid} Zoë 用户 🦄", tenant="café", event="ändern 🛒", properties='{"ключ": "значение"}'.encode())
    ],
    "empty objects": lambda uid: [row(uid=uid, properties=b"{}", context=b"{}", number=n) for n in range(2)],
    "32 KiB": lambda uid: [row(uid=uid, properties=b'{"long": "%s"}' % (b"x" * 32_700))],
    "a batch beyond the server's warning": lambda uid: [
        row(uid=uid, properties=b'{"long": "%s"}' % (b"x" * 5_000), number=number) for number in range(9)
    ],
}


@pytest.mark.parametrize("shape", SHAPES)
@on_event_loop
async def test_rows_arrive_as_given(kind: str, table: Table, shape: str) -> None:
    rows = SHAPES[shape](f"{kind} {uuid4()}")
    async with opened(kind, table.cluster) as writer:
        assert list(await writer.write([batch(*rows)])) == []
    found = table.rows(rows[0].uid)
    assert [read_cells(each) for each in found] == [cells(each) for each in rows]
    for given, stored in zip(rows, found, strict=True):
        life = given.ttl_seconds or table.retention_seconds
        assert life - 2 * DEADLINE_SECONDS <= stored.ttl <= life


@on_event_loop
async def test_writing_twice_changes_nothing(kind: str, table: Table) -> None:
    uid = f"twice {kind}"
    rows = batch(*(row(uid=uid, number=number) for number in range(3)))
    async with opened(kind, table.cluster) as writer:
        assert list(await writer.write([rows])) == []
        first = [read_cells(each) for each in table.rows(uid)]
        assert list(await writer.write([rows, rows[:1]])) == []
    assert [read_cells(each) for each in table.rows(uid)] == first


@on_event_loop
async def test_an_older_write_does_not_overwrite_a_newer_one(kind: str, table: Table) -> None:
    newer = row(uid=f"older {kind}", properties=b'{"version": 2}', write_micros=NOW_MS * 1000)
    older = row(uid=f"older {kind}", properties=b'{"version": 1}', write_micros=NOW_MS * 1000 - 1)
    async with opened(kind, table.cluster) as writer:
        assert list(await writer.write([batch(newer)])) == []
        assert list(await writer.write([batch(older)])) == []
    assert [each.properties for each in table.rows(newer.uid)] == ['{"version": 2}']


@on_event_loop
async def test_of_rows_of_one_name_the_newest_event_stays_whatever_comes_last(kind: str, table: Table) -> None:
    uid = f"latest {kind}"
    late = row(uid=uid, number=3, event="late", ttl_seconds=777_777)
    async with opened(kind, table.cluster) as writer:
        assert list(await writer.write([[latest(row(uid=uid, number=2)), latest(late)]])) == []
        assert list(await writer.write([[latest(row(uid=uid, number=1))], batch(row(uid=uid, number=1))])) == []
    found = table.run(
        "SELECT event, item, WRITETIME(item) AS written, TTL(item) AS ttl FROM latest WHERE uid = %s AND tenant = 'shop'",
        uid,
    )
    assert [(each.event, each.item[1].int & 0xFF, each.item[2:], each.written) for each in found] == [
        ("late", 3, ("late", '{"number": 3}', "{}"), (NOW_MS + 3) * 1_000),
        ("product_viewed", 2, ("product_viewed", '{"number": 2}', "{}"), (NOW_MS + 2) * 1_000),
    ]
    for each, life in zip(found, (777_777, table.retention_seconds), strict=True):
        assert life - 2 * DEADLINE_SECONDS <= each.ttl <= life
    assert [each.event for each in table.rows(uid)] == ["product_viewed"]


@on_event_loop
async def test_two_events_of_one_moment_are_never_mixed(kind: str, table: Table) -> None:
    uid = f"tie {kind}"
    one = row(uid=uid, properties=b'{"a": 1}', context=b'{"z": 1}')
    two = row(uid=uid, properties=b'{"b": 2}', context=b'{"y": 2}', write_micros=one.write_micros)
    async with opened(kind, table.cluster) as writer:
        assert list(await writer.write([[latest(one)], [latest(two)], [latest(one), latest(two)]])) == []
    [found] = table.run("SELECT item FROM latest WHERE uid = %s AND tenant = 'shop'", uid)
    assert found.item[3:] in {('{"a": 1}', '{"z": 1}'), ('{"b": 2}', '{"y": 2}')}


@on_event_loop
async def test_what_is_written_beside_a_row_leaves_it_as_it_is(kind: str, table: Table) -> None:
    given = row(uid=f"beside {kind}")
    rows = [encode(given), latest(given)]
    async with opened(kind, table.cluster) as writer:
        assert list(await writer.write([[each] for each in rows])) == []
        assert list(await writer.write([[nothing_beside(each)] for each in rows])) == []
    assert cells(given) in [read_cells(each) for each in table.rows(given.uid)]
    found = table.run(
        "SELECT item FROM latest WHERE uid = %s AND tenant = 'shop' AND event = %s", given.uid, given.event
    )
    assert [each.item[3] for each in found] == [given.properties.decode()]


@on_event_loop
async def test_many_partitions_go_at_once_through_a_small_window(kind: str, table: Table) -> None:
    batches = some_batches(f"many {kind}", 300)
    async with opened(kind, table.cluster, in_flight=8) as writer:
        answers = await asyncio.gather(*(writer.write(batches[start::3]) for start in range(3)))
    assert [list(failures) for failures in answers] == [[], [], []]
    stored = table.run("SELECT uid FROM events")
    assert sum(found.uid.startswith(f"many {kind}") for found in stored) == 900


@on_event_loop
async def test_acknowledgements_are_counted_while_a_write_is_under_way_and_a_caller_may_leave_it(
    kind: str, table: Table
) -> None:
    async with opened(kind, table.cluster, in_flight=2) as writer:
        leaving = asyncio.create_task(writer.write(some_batches("left", 300)))
        await eventually(lambda: writer.acknowledged > 0, "the first acknowledgement")
        assert not leaving.done()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        before = writer.acknowledged
        assert list(await writer.write(some_batches("stayed", 20))) == []
        assert writer.acknowledged - before >= 20


@on_event_loop
async def test_nothing_to_write_is_written_at_once(kind: str, table: Table) -> None:
    async with opened(kind, table.cluster) as writer:
        assert list(await writer.write([])) == []


@on_event_loop
async def test_a_missing_table_is_refused_at_open(kind: str, stack: RunningStack) -> None:
    nowhere = replace(load_registry(stack.registry_path).clusters["c15"], keyspace="nowhere")
    with pytest.raises(PermanentStoreError, match=r"c15.*(nowhere|events).*schema check"):
        async with opened(kind, nowhere):
            pass


@on_event_loop
async def test_a_column_dropped_under_the_writer_is_permanent(kind: str, stack: RunningStack) -> None:
    table = Table(isolated(load_registry(stack.registry_path).tiers["t15"]))
    try:
        async with opened(kind, table.cluster, request_timeout=DDL_SECONDS) as writer:
            assert list(await writer.write([batch(row())])) == []
            table.run("ALTER TABLE events DROP context")
            refused = batch(row(number=2))
            (failure,) = await writer.write([refused])
            assert failure.batch is refused
            assert isinstance(failure.error, PermanentStoreError)
            assert "context" in str(failure.error)
    finally:
        table.drop()


@on_event_loop
async def test_a_column_added_under_the_writer_does_no_harm(kind: str, stack: RunningStack) -> None:
    table = Table(isolated(load_registry(stack.registry_path).tiers["t15"]))
    try:
        async with opened(kind, table.cluster, request_timeout=DDL_SECONDS) as writer:
            assert list(await writer.write([batch(row())])) == []
            table.run("ALTER TABLE events ADD more text")
            assert list(await writer.write(some_batches("added", 20))) == []
    finally:
        table.drop()


@on_event_loop
async def test_a_cluster_that_nobody_serves_is_transient(kind: str) -> None:
    nobody = cluster("away", contact_points=("127.0.3.99",), port=29_999)
    with pytest.raises(TransientStoreError, match=r"away.*127\.0\.3\.99"):
        async with opened(kind, nobody, request_timeout=1.0):
            pass


# ------------------------------------------------------------------------------------------------- a node in trouble


class OwnNode:
    """A server that may be stopped and killed; nobody else uses it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        at = cluster("own", contact_points=("127.0.3.7",), port=27_042)
        local = {"kafka_port": 27_092, "data_dir": directory, "cassandra_memory_mb": 256}
        settings = load_settings(local=local, kafka={"bootstrap_servers": "127.0.0.1:1"})
        self._stack = Stack(settings, Registry(clusters={"own": at}, tiers={}, tenants={}))
        self.start()
        self.table = Table(isolated(tier("t15", days=15, width_days=5, on=at)))

    def start(self) -> None:
        self._stack.up()

    def kill(self) -> None:
        process.kill(self._process())

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._process().pid, number)

    def end(self) -> None:
        lifecycle.down(self._directory)

    def _process(self) -> process.Process:
        found = process.find(self._directory / "own")
        assert found is not None
        return found


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnNode]:
    if os.environ.get("EVENTSTORE_STACK", "local") != "local":
        pytest.skip("only servers of the embedded stack can be stopped and killed")
    made = OwnNode(tmp_path_factory.mktemp("node"))
    yield made
    made.end()


def each_failed_once(batches: list[Batch], failures: list[Failure]) -> None:
    assert sorted(id(failure.batch) for failure in failures) == sorted(map(id, batches))
    for failure in failures:
        assert isinstance(failure.error, TransientStoreError), failure.error


async def recovered(writer: EventWriter) -> None:
    """The same writer stores rows again."""
    failures: list[Failure] = [Failure([], StoreError("not tried yet"))]

    async def attempt() -> None:
        failures[:] = await writer.write(some_batches("recovered", 20))

    end = asyncio.get_running_loop().time() + DEADLINE_SECONDS
    while failures:
        assert asyncio.get_running_loop().time() < end, failures[0].error
        await attempt()
        assert all(isinstance(failure.error, TransientStoreError) for failure in failures)
        await asyncio.sleep(0.05 if failures else 0)


@on_event_loop
async def test_a_frozen_node_fails_its_batches_in_time_and_is_used_again(kind: str, node: OwnNode) -> None:
    batches = some_batches("frozen", 100)
    async with opened(kind, node.table.cluster, in_flight=16, request_timeout=1.0) as writer:
        await recovered(writer)
        node.signal(signal.SIGSTOP)
        try:
            failures = await asyncio.wait_for(writer.write(batches), DEADLINE_SECONDS)
        finally:
            node.signal(signal.SIGCONT)
        each_failed_once(batches, list(failures))
        await recovered(writer)


@on_event_loop
async def test_a_killed_node_loses_nothing_and_is_used_again(node: OwnNode) -> None:
    async with opened("driver", node.table.cluster) as driver, opened("lane", node.table.cluster) as lane:
        writers = {"driver": driver, "lane": lane}
        batches = {kind: some_batches(f"killed {kind}", 2_000) for kind in writers}
        writes = {kind: asyncio.create_task(_until_failing(writers[kind], batches[kind])) for kind in writers}
        await asyncio.to_thread(node.kill)  # while they write
        failed = {kind: await asyncio.wait_for(write, DEADLINE_SECONDS) for kind, write in writes.items()}
        for kind, writer in writers.items():
            each_failed_once(batches[kind][:50], list(await writer.write(batches[kind][:50])))
        await asyncio.to_thread(node.start)
        for kind, writer in writers.items():
            await recovered(writer)
            node.table.look_anew()
            stored = {found.uid for found in node.table.run("SELECT uid FROM events")}
            acknowledged = [each for each in batches[kind] if id(each) not in {id(one) for one in failed[kind]}]
            assert {uid_of(each[0]) for each in acknowledged} <= stored


async def _until_failing(writer: EventWriter, batches: list[Batch]) -> list[Batch]:
    """Writes over and over until something fails; which batches of that call did."""
    while not (failures := await writer.write(batches)):
        pass
    assert all(isinstance(failure.error, TransientStoreError) for failure in failures)
    return [failure.batch for failure in failures]
