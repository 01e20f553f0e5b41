"""Drains over chunks, clusters and retry topics in memory."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from eventstore import metrics
from eventstore.errors import (
    CircuitOpenError,
    KafkaError,
    PermanentKafkaError,
    PermanentStoreError,
    TransientKafkaError,
)
from eventstore.events.cells import Batch
from eventstore.ingest import drain
from eventstore.ingest.admission import ClockRules
from eventstore.ingest.circuit import State
from eventstore.ingest.drain import DrainPolicy, Drains, Source
from eventstore.ingest.express import Express
from eventstore.ingest.pipeline import Pipeline
from eventstore.ingest.rejects import RejectLimit, RejectWindow
from eventstore.stream.chunk import Chunk, Record
from eventstore.stream.dead_letters import Reject
from eventstore.tenancy import Tenant
from tests.builders import NOW_MS, cluster, registry, tier
from tests.loops import on_event_loop
from tests.records import chunk_of, message
from tests.waiting import eventually

pytestmark = pytest.mark.unit

REGISTRY = registry(Tenant("shop", tier("t30")), Tenant("forum", tier("t15", days=15, on=cluster("c15"))))
QUICK = DrainPolicy(records_per_second=1e6, look_seconds=0.01, idle_seconds=0.05, suspended_seconds=0.02)


class RetryTopic:
    """Chunks of a retry topic."""

    def __init__(self, *chunks: Chunk) -> None:
        self.chunks = list(chunks)
        self.joined = 0
        self.left = 0

    async def next(self) -> Chunk:
        if self.chunks:
            return self.chunks.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def abort(self) -> None:
        self.left += 1


class Outlet:
    def __init__(self, name: str) -> None:
        self.name = name
        self.open = False
        self.rows = 0
        self.error: PermanentStoreError | None = None

    async def store(self, batches: Sequence[Batch]) -> None:
        if self.error is not None:
            raise self.error
        if self.open:
            raise CircuitOpenError(f"{self.name} is away")
        self.rows += sum(map(len, batches))


class DivertsInMemory:
    def __init__(self) -> None:
        self.diverted: list[tuple[str, Record]] = []

    async def send(self, cluster: str, records: Sequence[Record]) -> None:
        self.diverted += [(cluster, record) for record in records]


class NoDeadLetters:
    async def send(self, rejects: Sequence[Reject]) -> None:
        raise AssertionError(rejects)


class Setting:
    def __init__(self, topic: RetryTopic, *, waits: int = 1, rejects: RejectLimit | None = None) -> None:
        self.topic = topic
        self.waits: dict[str, int | KafkaError] | KafkaError = {"c30": waits}
        self.refusal: KafkaError | None = None
        self.looks = 0
        self.outlets = {name: Outlet(name) for name in ("c15", "c30")}
        self.diverts = DivertsInMemory()
        self.tell_fatal: Callable[[KafkaError], None]
        pipeline = Pipeline(
            registry=lambda: REGISTRY,
            outlet=self.outlets.__getitem__,
            dead_letters=NoDeadLetters(),
            clock=lambda: NOW_MS * 1000,
            express=Express(ClockRules()),
            diverts=self.diverts,
            rejects=RejectWindow(rejects or RejectLimit()),
        )
        self.drains = Drains(self.states, self.backlogs, self.join, pipeline, QUICK)

    def states(self) -> dict[str, State]:
        return {name: State.OPEN if outlet.open else State.CLOSED for name, outlet in self.outlets.items()}

    async def backlogs(self) -> dict[str, int | KafkaError]:
        self.looks += 1
        if isinstance(self.waits, KafkaError):
            raise self.waits
        return self.waits

    async def join(self, cluster: str, on_fatal: Callable[[KafkaError], None]) -> Source:
        assert cluster == "c30"
        if self.refusal is not None:
            raise self.refusal
        self.topic.joined += 1
        self.tell_fatal = on_fatal
        return self.topic


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "GLANCE_SECONDS", 0.005)
    metrics.DRAIN_SUSPENDED.clear()


def suspended(cluster: str) -> float:
    found: float = metrics.DRAIN_SUSPENDED.labels(cluster)._value.get()
    return found


async def ended(running: "asyncio.Task[None]") -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@on_event_loop
async def test_what_waits_is_stored_and_the_drain_leaves_when_nothing_comes_any_more() -> None:
    finished: list[Chunk] = []
    topic = RetryTopic(*(chunk_of(message(n), finish=finished.append) for n in range(3)))
    setting = Setting(topic)
    running = asyncio.create_task(setting.drains.keep_draining())
    await eventually(lambda: topic.left == 1, "the drain's end")
    assert setting.outlets["c30"].rows == 3
    assert len(finished) == 3
    await ended(running)


@on_event_loop
async def test_nothing_is_drained_while_the_circuit_is_open_and_soon_after_it_closes_it_is() -> None:
    setting = Setting(RetryTopic(chunk_of(message(1))))
    setting.outlets["c30"].open = True
    running = asyncio.create_task(setting.drains.keep_draining())
    await eventually(lambda: setting.looks > 2, "looks")
    assert setting.topic.joined == 0
    setting.outlets["c30"].open = False
    await eventually(lambda: setting.outlets["c30"].rows == 1, "the row")
    await ended(running)


@on_event_loop
async def test_a_circuit_that_opens_again_ends_the_drain_and_nothing_is_diverted_back() -> None:
    finished: list[Chunk] = []
    setting = Setting(RetryTopic(chunk_of(message(1), finish=finished.append)))
    running = asyncio.create_task(setting.drains.keep_draining())
    states = setting.states()
    setting.drains._states = lambda: states  # the look comes before the circuit opens
    setting.outlets["c30"].open = True
    await eventually(lambda: setting.topic.left > 0, "the drain's end")
    assert setting.diverts.diverted == []
    assert finished == []
    assert not running.done()
    await ended(running)


@on_event_loop
async def test_a_record_whose_tenant_has_moved_to_a_cluster_that_is_away_is_diverted_there() -> None:
    finished: list[Chunk] = []
    setting = Setting(RetryTopic(chunk_of(message(1, tenant="forum"), message(2), finish=finished.append)))
    setting.outlets["c15"].open = True
    running = asyncio.create_task(setting.drains.keep_draining())
    await eventually(lambda: len(finished) == 1, "the chunk")
    ((where, record),) = setting.diverts.diverted
    assert (where, record.offset()) == ("c15", 1)
    assert setting.outlets["c30"].rows == 1
    await ended(running)


@on_event_loop
async def test_records_of_a_cluster_that_left_the_registry_go_where_their_tenants_are() -> None:
    setting = Setting(RetryTopic(chunk_of(message(1))))
    setting.drains._states = lambda: {"c15": State.CLOSED}
    running = asyncio.create_task(setting.drains.keep_draining())
    await eventually(lambda: setting.outlets["c30"].rows == 1, "the row")
    await ended(running)


@on_event_loop
async def test_brokers_that_are_away_are_asked_again() -> None:
    setting = Setting(RetryTopic(chunk_of(message(1))))
    setting.waits = TransientKafkaError("no broker answers")
    running = asyncio.create_task(setting.drains.keep_draining())
    await eventually(lambda: setting.looks > 1, "looks")
    setting.waits = {"c30": 1}
    await eventually(lambda: setting.outlets["c30"].rows == 1, "the row")
    await ended(running)


@on_event_loop
async def test_a_source_that_ends_for_good_suspends_its_own_drain_until_it_is_mended() -> None:
    setting = Setting(RetryTopic())
    running = asyncio.create_task(setting.drains.keep_draining())
    await eventually(lambda: setting.topic.joined == 1, "the drain")
    setting.tell_fatal(PermanentKafkaError("access refused"))
    await eventually(lambda: setting.topic.left == 1, "the drain's end")
    assert suspended("c30") == 1
    setting.topic.chunks.append(chunk_of(message(1)))
    await eventually(lambda: setting.outlets["c30"].rows == 1, "another try")
    assert suspended("c30") == 0
    await ended(running)


@on_event_loop
async def test_a_topic_that_cannot_be_joined_suspends_its_own_drain() -> None:
    setting = Setting(RetryTopic())
    setting.refusal = PermanentKafkaError("no such topic")
    running = asyncio.create_task(setting.drains.keep_draining())
    await eventually(lambda: suspended("c30") == 1, "the suspension")
    assert not running.done()
    await ended(running)


@on_event_loop
async def test_a_gap_in_one_retry_topic_is_no_matter_of_the_others() -> None:
    setting = Setting(RetryTopic(chunk_of(message(1))))
    setting.waits = {"c15": PermanentKafkaError("records are gone"), "c16": TransientKafkaError("busy"), "c30": 1}
    running = asyncio.create_task(setting.drains.keep_draining())
    await eventually(lambda: setting.topic.left == 1, "the other drain's end")
    assert setting.outlets["c30"].rows == 1
    assert (suspended("c15"), suspended("c30")) == (1, 0)
    setting.waits = {"c15": 0}
    await eventually(lambda: suspended("c15") == 0, "the mend to be seen")
    await ended(running)


@on_event_loop
async def test_what_the_pipeline_cannot_do_ends_all_draining() -> None:
    setting = Setting(RetryTopic(chunk_of(message(1))))
    setting.outlets["c30"].error = PermanentStoreError("no such column")
    with pytest.raises(PermanentStoreError):
        await asyncio.wait_for(setting.drains.keep_draining(), 10)
    assert setting.topic.left == 1


@on_event_loop
async def test_a_topic_of_rejects_suspends_its_own_drain_until_the_worker_is_started_again() -> None:
    unknown = [message(n, tenant="gone") for n in range(10)]
    setting = Setting(RetryTopic(chunk_of(*unknown)), rejects=RejectLimit(records=10))
    running = asyncio.create_task(setting.drains.keep_draining())
    await eventually(lambda: suspended("c30") == 1, "the suspension")
    looks = setting.looks
    await eventually(lambda: setting.looks > looks + 20, "the time of several tries")
    assert (setting.topic.joined, setting.topic.left) == (1, 1)
    assert not running.done(), "live events go on"
    await ended(running)


@on_event_loop
async def test_what_comes_home_tells_nothing_of_how_fresh_live_events_are() -> None:
    freshness = metrics.FRESHNESS.labels("c30")._sum
    setting, before = Setting(RetryTopic(chunk_of(message(1)))), freshness.get()
    running = asyncio.create_task(setting.drains.keep_draining())
    await eventually(lambda: setting.topic.left == 1, "the drain's end")
    assert setting.outlets["c30"].rows == 1
    assert freshness.get() == before
    await ended(running)


@on_event_loop
async def test_the_rate_is_kept() -> None:
    setting = Setting(RetryTopic(*(chunk_of(*(message(n) for n in range(100))) for _ in range(3))))
    setting.drains._policy = replace(QUICK, records_per_second=100.0, idle_seconds=5.0)
    running = asyncio.create_task(setting.drains.keep_draining())
    await eventually(lambda: setting.outlets["c30"].rows >= 200, "what a second's burst and one grant allow")
    assert setting.outlets["c30"].rows == 200
    await ended(running)
