"""The pipeline with writers and dead letters in memory: what must be true of a chunk when `run` returns, or does not."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from confluent_kafka import Message

from eventstore import metrics
from eventstore.errors import CircuitOpenError, PermanentStoreError, RefusedError, TransientKafkaError
from eventstore.events import Coordinates, Reason, event_id
from eventstore.events.cells import Batch, values
from eventstore.ingest.admission import ClockRules
from eventstore.ingest.express import Express
from eventstore.ingest.outlet import Direct, Outlet
from eventstore.ingest.pipeline import Pipeline
from eventstore.ingest.rejects import RejectLimit, RejectWindow
from eventstore.ingest.retry import RetryPolicy
from eventstore.store.writer import Failure
from eventstore.stream.chunk import Record
from eventstore.stream.dead_letters import Reject
from eventstore.tenancy import Tenant
from tests.builders import DAY_MS, NOW_MS, cluster, envelope, registry, tier, uid_of
from tests.records import chunk_of, message

pytestmark = pytest.mark.unit

REGISTRY = registry(Tenant("shop", tier("t30")), Tenant("forum", tier("t15", days=15, on=cluster("c15"))))


class StoredInMemory:
    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.batches: list[Batch] = []
        self.error: PermanentStoreError | None = None
        self.seconds = 0.0
        self.acknowledged = 0

    async def write(self, batches: Sequence[Batch]) -> list[Failure]:
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            return [Failure(batch, self.error) for batch in batches]
        self.batches += batches
        return []

    async def close(self) -> None: ...


class DeadLettersInMemory:
    def __init__(self) -> None:
        self.rejects: list[Reject] = []
        self.error: TransientKafkaError | None = None

    async def send(self, rejects: Sequence[Reject]) -> None:
        if self.error is not None:
            raise self.error
        self.rejects += rejects


class DivertsInMemory:
    def __init__(self) -> None:
        self.records: list[tuple[str, Record]] = []
        self.error: TransientKafkaError | None = None

    async def send(self, cluster: str, records: Sequence[Record]) -> None:
        if self.error is not None:
            raise self.error
        self.records += [(cluster, record) for record in records]


class Away:
    """An outlet whose circuit is open."""

    async def store(self, _: Sequence[Batch]) -> None:
        raise CircuitOpenError("it is away")


class World:
    def __init__(self) -> None:
        self.clusters = {name: StoredInMemory(name) for name in ("c15", "c30")}
        self.away: set[str] = set()
        self.dead_letters = DeadLettersInMemory()
        self.diverts = DivertsInMemory()
        self.pipeline = Pipeline(
            registry=lambda: REGISTRY,
            outlet=self.outlet,
            dead_letters=self.dead_letters,
            clock=lambda: NOW_MS * 1000,
            express=Express(ClockRules()),
            diverts=self.diverts,
            rejects=RejectWindow(RejectLimit(records=10)),
        )

    def outlet(self, name: str) -> Outlet:
        return Away() if name in self.away else Direct(self.clusters[name], RetryPolicy(deadline_seconds=0.001))

    def run(self, *messages: Message) -> None:
        asyncio.run(self.pipeline.run(chunk_of(*messages)))

    def uids(self, name: str) -> list[list[str]]:
        return [[uid_of(row) for row in batch] for batch in self.clusters[name].batches]


def test_rows_go_to_their_clusters_in_batches_of_one_user() -> None:
    world = World()
    world.run(message(1, uid="a"), message(2, uid="b"), message(3, uid="a"), message(4, tenant="forum", uid="a"))
    assert world.uids("c30") == [["a", "a"], ["b"]]
    assert world.uids("c15") == [["a"]]


def test_one_bad_record_never_harms_its_neighbours() -> None:
    world = World()
    world.run(message(1), message(2, b"not json"), message(3))
    assert world.uids("c30") == [["u1", "u1"]]
    (reject,) = world.dead_letters.rejects
    assert reject.rejected.reason is Reason.MALFORMED
    assert reject.coordinates == Coordinates("events", 3, 2)
    assert (reject.key, reject.value) == (b"shop:u1", b"not json")
    assert reject.timestamp_ms == NOW_MS


def test_what_expired_on_arrival_is_neither_stored_nor_rejected() -> None:
    world = World()
    world.run(message(1, envelope(timestamp=NOW_MS - 31 * DAY_MS)))
    assert world.uids("c30") == []
    assert world.dead_letters.rejects == []


def test_a_replayed_dead_letter_keeps_the_identity_of_its_first_place() -> None:
    world = World()
    world.run(message(99, headers=[("es-origin", b"events/0/7")]))
    ((row,),) = world.clusters["c30"].batches
    assert values(row)[4] == event_id("shop", None, lambda: Coordinates("events", 0, 7))


def test_a_refused_write_fails_the_chunk() -> None:
    world = World()
    world.clusters["c15"].error = PermanentStoreError("c15 has no such table")
    with pytest.raises(PermanentStoreError, match="no such table"):
        world.run(message(1), message(2, tenant="forum"))


def test_an_unconfirmed_dead_letter_fails_the_chunk() -> None:
    world = World()
    world.dead_letters.error = TransientKafkaError("not confirmed")
    with pytest.raises(TransientKafkaError, match="not confirmed"):
        world.run(message(1), message(2, b"not json"))


def test_records_of_a_cluster_that_is_away_are_diverted_and_all_others_flow_on() -> None:
    world = World()
    world.away = {"c15"}
    world.run(message(1, tenant="forum"), message(2), message(3, b"not json"), message(4, tenant="forum", uid="u2"))
    assert [(where, record.offset()) for where, record in world.diverts.records] == [("c15", 1), ("c15", 4)]
    assert world.uids("c30") == [["u1"]]
    assert len(world.dead_letters.rejects) == 1


def test_what_has_expired_is_not_diverted() -> None:
    world = World()
    world.away = {"c30"}
    world.run(message(1, envelope(timestamp=NOW_MS - 31 * DAY_MS)), message(2))
    assert [record.offset() for _, record in world.diverts.records] == [2]


def test_an_unconfirmed_divert_fails_the_chunk() -> None:
    world = World()
    world.away = {"c30"}
    world.diverts.error = TransientKafkaError("not confirmed")
    with pytest.raises(TransientKafkaError, match="not confirmed"):
        world.run(message(1))


def test_without_anywhere_to_divert_to_an_open_circuit_fails_the_chunk() -> None:
    world = World()
    world.away = {"c30"}
    world.pipeline = replace(world.pipeline, diverts=None)
    with pytest.raises(CircuitOpenError):
        world.run(message(1))


def test_a_cluster_that_fails_does_not_cut_the_writes_of_another_short() -> None:
    world = World()
    world.clusters["c15"].error = PermanentStoreError("c15 has no such table")
    world.clusters["c30"].seconds = 0.01
    with pytest.raises(PermanentStoreError):
        world.run(message(1), message(2, tenant="forum"))
    assert world.uids("c30") == [["u1"]]


def test_suspiciously_many_rejects_fail_the_chunk_before_they_reach_the_dead_letters() -> None:
    world = World()
    with pytest.raises(RefusedError, match="malformed 9"):
        world.run(message(1), *(message(2 + n, b"not json") for n in range(9)))
    assert world.dead_letters.rejects == []


def test_records_are_counted_by_tenant_and_a_name_that_nobody_knows_is_none() -> None:
    def counted(tenant: str, outcome: str) -> float:
        value: float = metrics.TENANT_RECORDS.labels(tenant, outcome)._value.get()
        return value

    before = [counted("shop", "accepted"), counted("forum", "accepted"), counted("forum", "rejected")]
    World().run(
        message(1), message(2, uid="u2"), message(3, tenant="forum"), message(4, b"no", tenant="forum"), message(5, tenant="mars")
    )  # fmt: skip
    after = [counted("shop", "accepted"), counted("forum", "accepted"), counted("forum", "rejected")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 1, 1]
    assert "mars" not in str(list(metrics.TENANT_RECORDS.collect()))
