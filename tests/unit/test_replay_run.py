"""A replay's work on chunks: what is left out, what is counted, what a failure leaves behind."""

import asyncio
from collections.abc import Sequence

import pytest
from confluent_kafka import Message

from eventstore.errors import TransientStoreError
from eventstore.events.cells import Batch
from eventstore.ingest.admission import ClockRules
from eventstore.ingest.express import Express
from eventstore.ingest.pipeline import Pipeline
from eventstore.ingest.rejects import RejectLimit, RejectWindow
from eventstore.replay.run import Account, CountedRejects, Runner, work_through
from eventstore.replay.scope import Scope, scoped, selection
from eventstore.replay.speed import Speed
from eventstore.stream.chunk import Chunk, Member, State
from eventstore.tenancy import Tenant
from tests.builders import NOW_MS, cluster, envelope, registry, tier, uid_of

pytestmark = pytest.mark.unit

REGISTRY = registry(Tenant("shop", tier()), Tenant("forum", tier("t15", days=15, on=cluster("c15"))))


class Kept:
    def __init__(self) -> None:
        self.batches: list[Batch] = []

    async def store(self, batches: Sequence[Batch]) -> None:
        self.batches += batches


class Finishing(Member):
    """A member that only notes what is finished."""

    def finish(self, chunk: Chunk) -> None:
        chunk.state = State.FINISHED


def chunk(*records: tuple[str, str]) -> Chunk:
    """Of (tenant, event name) pairs; the offset is the user's number."""
    messages = [
        Message(topic="events", partition=0, offset=n, key=f"{tenant}:u{n}".encode(),
                value=envelope(tenant=tenant, uid=f"u{n}", event=name, message_id=str(n)))
        for n, (tenant, name) in enumerate(records)
    ]  # fmt: skip
    return Chunk("events", 0, messages, 0, Finishing())


class World:
    def __init__(self, scope: Scope) -> None:
        meant = scoped(REGISTRY, scope)
        self.stores = {name: Kept() for name in meant.clusters}
        rejects = CountedRejects()
        pipeline = Pipeline(
            registry=lambda: meant,
            outlet=self.stores.__getitem__,
            dead_letters=rejects,
            clock=lambda: NOW_MS * 1_000,
            express=Express(ClockRules()),
            rejects=RejectWindow(RejectLimit(share=1)),
        )
        self.runner = Runner(pipeline, rejects, selection(scope, meant))

    def users(self, name: str) -> set[str]:
        return {uid_of(cells) for batch in self.stores[name].batches for cells in batch}


def test_records_outside_the_scope_are_skipped_and_never_called_rejected() -> None:
    world = World(Scope(tenants=("shop",), events=("bought",)))
    asyncio.run(world.runner.run(chunk(("shop", "bought"), ("shop", "seen"), ("forum", "bought"), ("gone", "bought"))))
    assert world.users("c30") == {"u0"}
    account = world.runner.account()
    assert (account.records, account.skipped, account.rejected) == (4, 3, {})


def test_what_the_rules_reject_is_counted_by_reason() -> None:
    world = World(Scope())
    asyncio.run(world.runner.run(chunk(("shop", "bought"), ("gone", "bought"), ("gone", "seen"))))
    assert world.runner.account().rejected == {"unknown_tenant": 2}
    assert world.users("c30") == {"u0"}


def test_a_chunk_without_any_record_of_the_scope_is_done_with() -> None:
    world = World(Scope(tenants=("shop",)))
    asyncio.run(world.runner.run(chunk(("forum", "seen"))))
    assert world.runner.account().skipped == 1


def test_accounts_of_several_processes_add_up() -> None:
    one, other = Account(10, 2, {"schema": 1}, 0.5), Account(5, 1, {"schema": 2, "empty": 1}, 0.25)
    assert one + other == Account(15, 3, {"schema": 3, "empty": 1}, 0.75)


class Given:
    """A source of these chunks, and then of nothing for ever."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self._chunks = list(chunks)

    async def next(self) -> Chunk:
        if self._chunks:
            return self._chunks.pop(0)
        return await asyncio.Future[Chunk]()


def test_a_chunk_whose_work_fails_is_never_finished_and_ends_the_process() -> None:
    chunks = [chunk(("shop", "seen")) for _ in range(3)]

    async def work(one: Chunk) -> None:
        if one is chunks[1]:
            raise TransientStoreError("gone")

    with pytest.raises(TransientStoreError, match="gone"):
        asyncio.run(work_through(Given(chunks), work))
    assert [each.state for each in chunks][:2] == [State.FINISHED, State.CLAIMED]


def test_a_chunk_that_was_dropped_is_left_alone() -> None:
    chunks = [chunk(("shop", "seen")), chunk(("shop", "seen"))]
    chunks[0].state = State.DROPPED
    done: list[Chunk] = []

    async def until_the_second() -> None:
        seen = asyncio.Event()

        async def work(one: Chunk) -> None:
            done.append(one)
            seen.set()

        working = asyncio.create_task(work_through(Given(chunks), work))
        await seen.wait()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    asyncio.run(until_the_second())
    assert done == [chunks[1]]


def test_speed_is_that_of_the_last_half_minute() -> None:
    speed = Speed()
    assert speed.seconds_for(10) is None
    for second in range(100):
        speed.observe(second * (10 if second < 50 else 100), float(second))
    assert speed.per_second == pytest.approx(100)
    assert speed.seconds_for(1_000) == pytest.approx(10)
    assert speed.seconds_for(0) == 0
