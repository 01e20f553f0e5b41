"""An outlet over a cluster in memory: who waits, who does not, and how it comes back."""

import asyncio
from collections.abc import Sequence

import pytest

from eventstore.errors import (
    CircuitOpenError,
    PermanentStoreError,
    StoreError,
    TransientStoreError,
)
from eventstore.events.cells import Batch
from eventstore.ingest.circuit import Circuit, CircuitPolicy, State, Wanted
from eventstore.ingest.outlet import GuardedOutlet
from eventstore.ingest.retry import RetryPolicy
from eventstore.store.writer import EventWriter, Failure
from tests import builders
from tests.builders import uid_of
from tests.loops import on_event_loop
from tests.waiting import eventually

pytestmark = pytest.mark.unit

POLICY = CircuitPolicy(refusal=1_000, silence=3, patience=10, first_pause=1, longest_pause=8)
RETRY = RetryPolicy(base_seconds=0.001, most_seconds=0.001, deadline_seconds=30)


def batch(uid: str) -> Batch:
    return builders.batch(builders.row(uid=uid))


class Cluster:
    """Stores, hangs or fails as it is told."""

    cluster = "c30"

    def __init__(self) -> None:
        self.answering = asyncio.Event()
        self.answering.set()
        self.error: StoreError | None = None
        self.lost: set[str] = set()
        """Users whose partitions have no quorum."""
        self.stored: list[str] = []
        self.tried = 0
        self.acknowledged = 0
        self.closed = False

    async def write(self, batches: Sequence[Batch]) -> list[Failure]:
        self.tried += 1
        await self.answering.wait()
        if self.error is not None:
            return [Failure(each, self.error) for each in batches]
        failures = [Failure(each, TransientStoreError("no quorum")) for each in batches if uid_of(each[0]) in self.lost]
        self.stored += [uid_of(row) for each in batches for row in each if uid_of(row) not in self.lost]
        self.acknowledged += len(batches) - len(failures)
        return failures

    async def close(self) -> None:
        self.closed = True


class Setting:
    def __init__(self) -> None:
        self.now = 0.0
        self.cluster = Cluster()
        self.away: StoreError | None = None
        self.attempts = 0
        self.outlet = GuardedOutlet("c30", self.connect, Circuit(POLICY), RETRY, clock=lambda: self.now)

    def is_in(self, state: State) -> bool:
        return self.outlet.circuit.state is state

    async def connect(self) -> EventWriter:
        self.attempts += 1
        if self.away is not None:
            raise self.away
        return self.cluster

    def at(self, now: float) -> None:
        self.now = now
        self.outlet.watch()

    async def connected(self) -> "Setting":
        await self.outlet.connect()
        return self


@on_event_loop
async def test_writes_that_wait_are_let_go_when_the_circuit_opens_and_later_ones_do_not_wait() -> None:
    setting = await Setting().connected()
    setting.cluster.answering.clear()
    waiting = [asyncio.create_task(setting.outlet.store([batch(uid)])) for uid in "ab"]
    await eventually(lambda: setting.cluster.tried == 2, "both writes")
    setting.at(2.9)
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    setting.at(3.0)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in outcomes] == [CircuitOpenError, CircuitOpenError]
    with pytest.raises(CircuitOpenError, match="nothing acknowledged for 3 s"):
        await setting.outlet.store([batch("c")])
    assert setting.cluster.tried == 2
    assert setting.outlet.idle


@on_event_loop
async def test_acknowledgements_within_a_write_are_signs_of_life_and_not_for_ever() -> None:
    setting = await Setting().connected()
    setting.cluster.answering.clear()
    waiting = asyncio.create_task(setting.outlet.store([batch(uid) for uid in "abc"]))
    await eventually(lambda: setting.cluster.tried == 1, "the write")
    for second in range(1, 10):
        setting.cluster.acknowledged += 1
        setting.at(second)
        assert setting.is_in(State.CLOSED)
    setting.at(10.0)
    with pytest.raises(CircuitOpenError, match="a write has waited for 10 s"):
        await waiting


@on_event_loop
async def test_a_probe_writes_to_the_partitions_that_were_not_written_to_and_closes_the_circuit() -> None:
    setting = await Setting().connected()
    setting.cluster.error = TransientStoreError("overloaded")
    failing = asyncio.create_task(setting.outlet.store([batch("a")]))
    await eventually(lambda: setting.cluster.tried > 2, "attempts")
    setting.at(3.0)
    with pytest.raises(CircuitOpenError):
        await failing
    with pytest.raises(CircuitOpenError):
        await setting.outlet.store([batch("b"), [*batch("c"), *batch("d")]])
    setting.cluster.error = None
    setting.at(3.9)
    assert setting.is_in(State.OPEN)
    setting.at(4.0)
    assert setting.is_in(State.HALF_OPEN)
    await eventually(lambda: setting.is_in(State.CLOSED), "the probe")
    assert setting.cluster.stored == ["a"]
    await setting.outlet.store([batch("e")])
    assert setting.cluster.stored == ["a", "e"]


@on_event_loop
async def test_while_some_partitions_have_no_quorum_the_circuit_stays_open() -> None:
    setting = await Setting().connected()
    setting.cluster.lost = {"c"}
    waiting = asyncio.create_task(setting.outlet.store([batch(uid) for uid in "abcdef"]))
    await eventually(lambda: setting.cluster.tried > 1, "another attempt")
    late = asyncio.create_task(setting.outlet.store([batch("g")]))  # of a partition that works
    await late
    for second in range(1, 11):
        setting.cluster.acknowledged += 1
        setting.at(second)
    with pytest.raises(CircuitOpenError, match="a write has waited for 10 s"):
        await waiting
    with pytest.raises(CircuitOpenError):
        await setting.outlet.store([batch("h")])
    setting.at(11.0)
    await eventually(lambda: setting.is_in(State.OPEN), "the probe's outcome")
    setting.cluster.lost = set()
    setting.at(13.0)
    await eventually(lambda: setting.is_in(State.CLOSED), "the next probe")
    assert sorted(setting.cluster.stored) == list("abcdefg")


@on_event_loop
async def test_a_probe_looks_at_a_few_partitions_of_many() -> None:
    setting = await Setting().connected()
    setting.outlet.circuit.trip(0.0, "gone")
    with pytest.raises(CircuitOpenError):
        await setting.outlet.store([batch(f"u{number:02}") for number in range(20)])
    setting.at(1.0)
    await eventually(lambda: setting.is_in(State.CLOSED), "the probe")
    assert setting.cluster.stored == ["u00", "u03", "u06", "u09", "u12", "u15", "u18"]


@on_event_loop
async def test_a_failed_probe_leaves_it_open() -> None:
    setting = await Setting().connected()
    setting.outlet.circuit.trip(0.0, "gone")
    with pytest.raises(CircuitOpenError):
        await setting.outlet.store([batch("a")])
    setting.cluster.error = PermanentStoreError("no such table")
    setting.at(1.0)
    await eventually(lambda: setting.is_in(State.OPEN), "the probe's outcome")
    assert setting.outlet.circuit.why == "no such table"


@on_event_loop
async def test_a_cluster_that_is_away_at_the_start_is_connected_in_the_background() -> None:
    setting = Setting()
    setting.outlet = GuardedOutlet(
        "c30", setting.connect, Circuit(CircuitPolicy(first_pause=0.01)), RETRY, clock=lambda: setting.now
    )
    setting.away = TransientStoreError("no node answers")
    await setting.outlet.connect()
    with pytest.raises(CircuitOpenError, match="no node answers"):
        await setting.outlet.store([batch("a")])
    setting.at(1.0)
    await eventually(lambda: setting.is_in(State.OPEN), "a probe without a connection")
    setting.away = None

    def closed() -> bool:
        setting.at(setting.now + 1)
        return setting.is_in(State.CLOSED)

    await eventually(closed, "the circuit to close")
    assert setting.cluster.stored == ["a"]


@on_event_loop
async def test_a_cluster_that_cannot_be_used_as_it_is_stops_the_start() -> None:
    setting = Setting()
    setting.away = PermanentStoreError("no such keyspace")
    with pytest.raises(PermanentStoreError):
        await setting.outlet.connect()


@on_event_loop
async def test_a_permanent_failure_is_not_diverted() -> None:
    setting = await Setting().connected()
    setting.cluster.error = PermanentStoreError("no such column")
    with pytest.raises(PermanentStoreError):
        await setting.outlet.store([batch("a")])
    assert setting.is_in(State.CLOSED)


@on_event_loop
async def test_an_operator_who_opens_it_lets_waiting_writes_go() -> None:
    setting = await Setting().connected()
    setting.cluster.answering.clear()
    waiting = asyncio.create_task(setting.outlet.store([batch("a")]))
    await eventually(lambda: setting.cluster.tried == 1, "the write")
    setting.outlet.want(Wanted.OPEN)
    with pytest.raises(CircuitOpenError, match="an operator opened it"):
        await waiting
    setting.at(1_000.0)
    assert setting.is_in(State.OPEN)
    setting.cluster.answering.set()
    setting.outlet.want(Wanted.AUTO)
    setting.at(1_000.0)
    await eventually(lambda: setting.is_in(State.CLOSED), "the probe")


@on_event_loop
async def test_an_operator_who_wants_it_closed_makes_writes_wait_however_long_it_takes() -> None:
    setting = await Setting().connected()
    setting.outlet.want(Wanted.CLOSED)
    setting.cluster.error = TransientStoreError("overloaded")
    waiting = asyncio.create_task(setting.outlet.store([batch("a")]))
    await eventually(lambda: setting.cluster.tried > 1, "attempts")
    for hour in range(1, 4):
        setting.at(hour * 3_600.0)
        tried = setting.cluster.tried
        await eventually(lambda tried=tried: setting.cluster.tried > tried + 1, "more attempts")  # type: ignore[misc]
    assert not waiting.done()
    setting.cluster.error = None
    await waiting
    assert setting.cluster.stored == ["a"]


@on_event_loop
async def test_an_operator_who_leaves_a_waiting_write_to_itself_has_it_diverted() -> None:
    setting = await Setting().connected()
    setting.outlet.want(Wanted.CLOSED)
    setting.cluster.error = TransientStoreError("overloaded")
    waiting = asyncio.create_task(setting.outlet.store([batch("a")]))
    await eventually(lambda: setting.cluster.tried > 1, "attempts")
    setting.at(3_600.0)
    setting.outlet.want(Wanted.AUTO)
    setting.at(3_600.0)
    with pytest.raises(CircuitOpenError):
        await waiting


@on_event_loop
async def test_writes_wait_for_a_connection_too_if_an_operator_wants_it_closed() -> None:
    setting = Setting()
    setting.away = TransientStoreError("no node answers")
    policy = CircuitPolicy(first_pause=0.05, longest_pause=0.05)
    impatient = RetryPolicy(deadline_seconds=0.01)
    setting.outlet = GuardedOutlet("c30", setting.connect, Circuit(policy), impatient, clock=lambda: setting.now)
    setting.outlet.want(Wanted.CLOSED)
    await setting.outlet.connect()
    waiting = asyncio.create_task(setting.outlet.store([batch("a")]))
    await eventually(lambda: setting.attempts > 2, "attempts to connect")
    assert not waiting.done()
    setting.away = None
    await waiting
    assert setting.cluster.stored == ["a"]


@on_event_loop
async def test_a_retry_deadline_that_comes_first_opens_the_circuit_too() -> None:
    setting = await Setting().connected()
    setting.outlet._retry = RetryPolicy(base_seconds=0.001, most_seconds=0.001, deadline_seconds=1)
    setting.cluster.error = TransientStoreError("overloaded")
    waiting = asyncio.create_task(setting.outlet.store([batch("a")]))
    await eventually(lambda: setting.cluster.tried > 1, "attempts")
    setting.now = 1.0
    with pytest.raises(CircuitOpenError):
        await waiting
    assert setting.is_in(State.OPEN)


@on_event_loop
async def test_what_nobody_expected_of_a_probe_is_raised_by_whoever_watches() -> None:
    setting = await Setting().connected()

    async def broken(_: Sequence[Batch]) -> list[Failure]:
        raise ArithmeticError("a bug")

    setting.cluster.write = broken  # type: ignore[method-assign, assignment]
    setting.outlet.circuit.trip(0.0, "gone")
    with pytest.raises(CircuitOpenError):
        await setting.outlet.store([batch("a")])
    setting.at(1.0)
    await eventually(lambda: setting.outlet._probe is not None and setting.outlet._probe.done(), "the probe's end")
    with pytest.raises(ArithmeticError):
        setting.at(2.0)


@on_event_loop
async def test_closing_ends_the_writer_and_what_runs_in_the_background() -> None:
    setting = await Setting().connected()
    setting.cluster.answering.clear()
    setting.outlet.circuit.trip(0.0, "gone")
    with pytest.raises(CircuitOpenError):
        await setting.outlet.store([batch("a")])
    setting.at(1.0)
    await eventually(lambda: setting.cluster.tried == 1, "the probe")
    await setting.outlet.close()
    assert setting.cluster.closed
