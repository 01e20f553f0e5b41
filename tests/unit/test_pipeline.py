"""The pipeline with writers and dead letters in memory: what must be true of a chunk when `run` returns, or does not."""

import asyncio
from collections.abc import Sequence

import pytest
from confluent_kafka import Message

from eventstore.errors import PermanentStoreError, TransientKafkaError
from eventstore.events import Coordinates, Reason, event_id
from eventstore.events.cells import Batch, values
from eventstore.ingest.admission import ClockRules
from eventstore.ingest.express import Express
from eventstore.ingest.outlet import Direct
from eventstore.ingest.pipeline import Pipeline
from eventstore.ingest.retry import RetryPolicy
from eventstore.store.writer import Failure
from eventstore.stream.chunk import Chunk, Member
from eventstore.stream.dead_letters import Reject
from eventstore.tenancy import Tenant
from tests.builders import DAY_MS, NOW_MS, cluster, envelope, registry, tier, uid_of

pytestmark = pytest.mark.unit

REGISTRY = registry(Tenant("shop", tier("t30")), Tenant("forum", tier("t15", days=15, on=cluster("c15"))))


class StoredInMemory:
    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.batches: list[Batch] = []
        self.error: PermanentStoreError | None = None

    async def write(self, batches: Sequence[Batch]) -> list[Failure]:
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


class World:
    def __init__(self) -> None:
        self.clusters = {name: StoredInMemory(name) for name in ("c15", "c30")}
        self.dead_letters = DeadLettersInMemory()
        self.pipeline = Pipeline(
            registry=lambda: REGISTRY,
            outlet=lambda name: Direct(self.clusters[name], RetryPolicy(deadline_seconds=0.001)),
            dead_letters=self.dead_letters,
            clock=lambda: NOW_MS * 1000,
            express=Express(ClockRules()),
        )

    def run(self, *messages: Message) -> None:
        asyncio.run(self.pipeline.run(Chunk("events", 3, messages, 0, Member())))

    def uids(self, name: str) -> list[list[str]]:
        return [[uid_of(row) for row in batch] for batch in self.clusters[name].batches]


def message(
    offset: int,
    value: bytes | None = None,
    *,
    tenant: str = "shop",
    uid: str = "u1",
    headers: list[tuple[str, bytes]] | None = None,
) -> Message:
    body = envelope(tenant=tenant, uid=uid) if value is None else value
    key = f"{tenant}:{uid}".encode()
    return Message(
        topic="events", partition=3, offset=offset, key=key, value=body, headers=headers or [], timestamp=(1, NOW_MS)
    )


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
