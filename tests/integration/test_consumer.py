"""A group member on a real Kafka: what is handed out, committed, given back, and refused."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable
from copy import copy
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from eventstore.config import GroupProtocol, KafkaSettings, WorkerSettings
from eventstore.errors import KafkaError, PermanentKafkaError
from eventstore.stream.assignment import ConsumerPolicy, Place
from eventstore.stream.chunk import Chunk, State
from eventstore.stream.consumer import ChunkConsumer
from eventstore.stream.group import group_config
from tests.stacks import RunningStack
from tests.waiting import eventually

pytestmark = pytest.mark.integration

POLICY = ConsumerPolicy(chunk_records=50, commit_seconds=0.1, drain_seconds=2.0)


class Log:
    """One topic and one group of a test."""

    def __init__(self, stack: RunningStack, partitions: int, protocol: GroupProtocol) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=stack.bootstrap_servers)
        self.topic = f"consumer-{uuid4().hex[:12]}"
        self.worker = WorkerSettings(group=f"group-{self.topic}", group_protocol=protocol)
        self.partitions = partitions
        self.admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
        self.admin.create_topics([NewTopic(self.topic, partitions, 1)])[self.topic].result(30)

    def fill(self, records: int, size: int = 10) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers})
        for number in range(records):
            producer.produce(self.topic, f"{number}".encode().rjust(size), partition=number % self.partitions)
        assert producer.flush(30) == 0

    def fill_one(self, partition: int, values: Iterable[bytes], **options: str | int) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, **options})
        for value in values:
            producer.produce(self.topic, value, partition=partition)
        assert producer.flush(30) == 0

    def fill_in_a_transaction(self, partition: int, records: int) -> None:
        """The transaction's end is an offset of its own, after the records."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap_servers, "transactional.id": self.topic})
        producer.init_transactions(30)
        producer.begin_transaction()
        for number in range(records):
            producer.produce(self.topic, b"%d" % number, partition=partition)
        producer.commit_transaction(30)

    def set_offset(self, partition: int, offset: int) -> None:
        mover = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": self.worker.group})
        try:
            mover.commit(offsets=[TopicPartition(self.topic, partition, offset)], asynchronous=False)
        finally:
            mover.close()

    def as_instance(self, name: str) -> "Log":
        """The same for a static member of the group."""
        other = copy(self)
        other.worker = self.worker.model_copy(update={"instance_id": name})
        return other

    def committed(self) -> dict[int, int]:
        """Committed offset by partition; partitions without one are left out."""
        asker = Consumer({"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": self.worker.group})
        try:
            places = [TopicPartition(self.topic, p) for p in range(self.partitions)]
            return {tp.partition: tp.offset for tp in asker.committed(places, timeout=30) if tp.offset >= 0}
        finally:
            asker.close()

    def drop_before(self, offset: int) -> None:
        place = TopicPartition(self.topic, 0, offset)
        self.admin.delete_records([place])[place].result(30)


class Recorder:
    """A member that records what it was handed; by default it finishes nothing."""

    def __init__(self, log: Log, policy: ConsumerPolicy = POLICY) -> None:
        self.errors: list[KafkaError] = []
        self.assignments: list[frozenset[Place]] = []
        self.chunks: list[Chunk] = []
        self.drained = asyncio.Event()
        self.consumer = ChunkConsumer(
            group_config(log.kafka, log.worker),
            policy,
            on_assignment=self._assigned,
            on_fatal=self.errors.append,
            on_drained=self.drained.set,
        )
        self._topic = log.topic
        self._taking: asyncio.Task[None] | None = None

    async def _assigned(self, places: frozenset[Place]) -> None:
        self.assignments.append(places)

    def start(self, on_chunk: Callable[[Chunk], None] = lambda _: None) -> None:
        self.consumer.start([self._topic])
        self.take(on_chunk)

    def take(self, on_chunk: Callable[[Chunk], None]) -> None:
        """Do this with every chunk from now on."""
        self._taking = asyncio.create_task(self._take(on_chunk))

    async def _take(self, on_chunk: Callable[[Chunk], None]) -> None:
        while True:
            chunk = await self.consumer.next()
            if chunk.claim():
                self.chunks.append(chunk)
                on_chunk(chunk)

    @property
    def values(self) -> list[int]:
        return [int(value or b"-1") for chunk in self.chunks for _, _, value in chunk.records()]

    async def stop(self) -> None:
        await self.consumer.stop()
        self.forget()

    async def vanish(self) -> None:
        """As if killed, but for leaving the group: nothing is finished, nothing is drained."""
        await self.consumer.abort()
        self.forget()

    def forget(self) -> None:
        if self._taking is not None:
            self._taking.cancel()


@pytest.fixture(params=list(GroupProtocol), ids=str)
def protocol(request: pytest.FixtureRequest) -> GroupProtocol:
    found: GroupProtocol = request.param
    return found


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_a_new_group_reads_everything_and_commits_it(stack: RunningStack, protocol: GroupProtocol) -> None:
    log = Log(stack, partitions=3, protocol=protocol)
    log.fill(600)

    async def scenario() -> None:
        member = Recorder(log)
        member.start(Chunk.finish)
        await eventually(lambda: len(member.values) >= 600, "all records")
        assert sorted(member.values) == list(range(600))
        await eventually(lambda: log.committed() == {0: 200, 1: 200, 2: 200}, "commits while running")
        await member.stop()
        assert member.errors == []

    run(scenario())


def test_an_unfinished_chunk_holds_the_commit_and_comes_again(stack: RunningStack, protocol: GroupProtocol) -> None:
    log = Log(stack, partitions=1, protocol=protocol)
    log.fill(500)

    async def scenario() -> None:
        first = Recorder(log)
        first.start()
        await eventually(lambda: len(first.values) >= 500, "all records")
        stuck = first.chunks[3]
        for chunk in first.chunks:
            if chunk is not stuck:
                chunk.finish()
        await first.stop()
        assert log.committed() == {0: stuck.first}
        second = Recorder(log)
        second.start(Chunk.finish)
        await eventually(lambda: len(second.values) >= 500 - stuck.first, "the rest again")
        await second.stop()
        assert second.values == list(range(stuck.first, 500))
        assert log.committed() == {0: 500}

    run(scenario())


def test_a_member_that_joins_and_one_that_vanishes_lose_nothing(stack: RunningStack, protocol: GroupProtocol) -> None:
    log = Log(stack, partitions=4, protocol=protocol)
    log.fill(4_000)

    async def scenario() -> None:
        policy = replace(POLICY, in_flight_records=200)
        first, second, third = Recorder(log, policy), Recorder(log, policy), Recorder(log, policy)
        finished: list[int] = []

        def finish_soon(chunk: Chunk) -> None:
            def done() -> None:
                finished.extend(int(value or b"-1") for _, _, value in chunk.records())
                chunk.finish()

            asyncio.get_running_loop().call_later(0.02, done)

        first.start(finish_soon)
        await eventually(lambda: len(finished) > 200, "the first member's work")
        second.start(finish_soon)
        await eventually(lambda: len(second.consumer.assignment) > 0, "partitions for the second member")
        await first.vanish()
        third.start(finish_soon)
        await eventually(lambda: set(finished) >= set(range(4_000)), "every record finished by somebody")
        await second.stop()
        await third.stop()
        assert sum(log.committed().values()) == 4_000
        assert first.errors + second.errors + third.errors == []

    run(scenario())


def test_what_finishes_after_a_revocation_commits_nothing(stack: RunningStack) -> None:
    log = Log(stack, partitions=2, protocol=GroupProtocol.CLASSIC)
    log.fill(200)

    async def scenario() -> None:
        slow = Recorder(log, replace(POLICY, drain_seconds=0.2))
        slow.start()
        await eventually(lambda: len(slow.values) >= 200, "all records")
        other = Recorder(log)
        other.start()
        await eventually(lambda: len(slow.consumer.assignment) == 1, "a partition taken from the slow member")
        (kept,) = slow.consumer.assignment
        lost = 1 - kept.partition
        for chunk in slow.chunks:
            if chunk.partition == lost:
                chunk.finish()
        await slow.stop()
        assert lost not in log.committed()
        await eventually(lambda: len(other.values) >= 100, "the lost partition's records at the other member")
        await other.stop()

    run(scenario())


def test_no_more_is_taken_than_the_credit_allows_and_the_rest_follows(stack: RunningStack) -> None:
    log = Log(stack, partitions=2, protocol=GroupProtocol.CLASSIC)
    log.fill(2_000, size=1_000)

    async def scenario() -> None:
        member = Recorder(log, replace(POLICY, in_flight_bytes=100_000))
        member.start()
        await eventually(lambda: member.consumer.stalled, "a pause: nothing is finished")
        assert sum(chunk.size for chunk in member.chunks) < 100_000 + POLICY.chunk_records * 2_000
        taken = list(member.chunks)
        member.forget()
        for chunk in taken:
            chunk.finish()
        rest: list[int] = []
        while len(rest) + sum(map(len, taken)) < 2_000:
            chunk = await asyncio.wait_for(member.consumer.next(), 30)
            rest += [int(value or b"-1") for _, _, value in chunk.records()]
            chunk.finish()
        assert sorted(rest + [int(v or b"-1") for c in taken for _, _, v in c.records()]) == list(range(2_000))
        await member.stop()

    run(scenario())


def test_a_partition_that_was_paused_when_it_was_taken_away_is_read_when_it_comes_back(
    stack: RunningStack, protocol: GroupProtocol
) -> None:
    log = Log(stack, partitions=2, protocol=protocol)
    log.fill(1_000)

    async def scenario() -> None:
        first, second = Recorder(log, replace(POLICY, in_flight_records=100)), Recorder(log)
        first.start()
        await eventually(lambda: first.consumer.stalled, "a stall that pauses the partitions")
        second.start()
        await eventually(lambda: len(second.consumer.assignment) == 1, "the second to get one of them")
        (moved,) = second.consumer.assignment
        await eventually(lambda: first.consumer.assignment == {Place(log.topic, 1 - moved.partition)}, "the other one")
        read: set[int] = set()

        def finish(chunk: Chunk) -> None:
            if chunk.partition == moved.partition:
                read.update(int(value or b"-1") for _, _, value in chunk.records())
            chunk.finish()

        first.forget()
        for chunk in first.chunks:
            chunk.finish()
        first.take(finish)
        await eventually(lambda: not first.consumer.stalled, "room again")
        await second.vanish()  # nothing of what it has read is committed
        await eventually(lambda: len(read) == 500, "the partition's records")
        await first.stop()
        assert log.committed() == {0: 500, 1: 500}

    run(scenario())


def test_an_offset_the_topic_no_longer_holds_stops_the_worker(stack: RunningStack) -> None:
    log = Log(stack, partitions=1, protocol=GroupProtocol.CLASSIC)
    log.fill(300)

    async def scenario() -> None:
        first = Recorder(log, replace(POLICY, in_flight_records=50))
        first.start()
        await eventually(lambda: bool(first.chunks), "a chunk")
        first.chunks[0].finish()
        await first.stop()
        (behind,) = log.committed().values()
        assert behind < 200
        log.drop_before(200)
        second = Recorder(log)
        second.start()
        await eventually(lambda: bool(second.errors), "a refusal")
        await second.vanish()
        (error,) = second.errors
        assert isinstance(error, PermanentKafkaError)
        assert "holds only offsets 200 to 299" in str(error)
        assert second.chunks == []
        assert log.committed() == {0: behind}

    run(scenario())


def test_reading_ends_where_it_was_told_to(stack: RunningStack, protocol: GroupProtocol) -> None:
    log = Log(stack, partitions=4, protocol=protocol)
    for partition in (0, 2, 3):
        log.fill_one(partition, (b"%d" % number for number in range(100)))
    log.fill_in_a_transaction(1, 100)  # offset 100 is taken, too, but by no record
    log.set_offset(0, 20)
    log.set_offset(2, 40)
    ends = {Place(log.topic, 0): 60, Place(log.topic, 1): 101, Place(log.topic, 2): 40}

    async def scenario() -> None:
        member = Recorder(log, replace(POLICY, ends=ends))
        member.start()
        await eventually(lambda: len(member.values) >= 40 + 100, "all records before the ends")
        assert not member.drained.is_set(), "told too early: nothing is finished"
        for chunk in member.chunks:
            chunk.finish()
        await asyncio.wait_for(member.drained.wait(), 30)
        found = {p: [int(v) for c in member.chunks if c.partition == p for _, _, v in c.records()] for p in range(4)}
        assert found == {0: list(range(20, 60)), 1: list(range(100)), 2: [], 3: []}
        await member.stop()
        assert member.errors == []
        assert log.committed() == {0: 60, 1: 101, 2: 40}

    run(scenario())


def test_records_of_every_codec_are_read(stack: RunningStack) -> None:
    codecs = ("gzip", "snappy", "lz4", "zstd")
    log = Log(stack, partitions=len(codecs), protocol=GroupProtocol.CLASSIC)
    for partition, codec in enumerate(codecs):
        values = (b"%d" % (partition * 1_000 + number) for number in range(500))
        options: dict[str, str | int] = {"compression.codec": codec, "linger.ms": 50}
        log.fill_one(partition, values, **options)

    async def scenario() -> None:
        member = Recorder(log)
        member.start(Chunk.finish)
        await eventually(lambda: len(member.values) >= 2_000, "all records")
        await member.stop()
        assert sorted(member.values) == [p * 1_000 + n for p in range(len(codecs)) for n in range(500)]
        assert log.committed() == dict.fromkeys(range(len(codecs)), 500)

    run(scenario())


def test_huge_records_and_an_empty_partition_harm_nobody(stack: RunningStack) -> None:
    log = Log(stack, partitions=3, protocol=GroupProtocol.CLASSIC)
    huge = (os.urandom(1_000_000) for _ in range(30))  # nearly what the topic takes
    log.fill_one(0, huge, **{"message.max.bytes": 2**20 + 64})
    log.fill_one(1, (b"%d" % number for number in range(5_000)))
    limit, queue = 4 * 2**20, 4 * 2**20
    log.worker = log.worker.model_copy(update={"fetch_queue_bytes": queue})

    async def scenario() -> None:
        member = Recorder(log, replace(POLICY, in_flight_bytes=limit))
        taken: list[int] = []

        def finish_later(chunk: Chunk) -> None:
            taken.append(sum(c.size for c in member.chunks if c.state is State.CLAIMED))
            asyncio.get_running_loop().call_later(0.01, chunk.finish)

        member.start(finish_later)
        await eventually(lambda: sum(map(len, member.chunks)) >= 5_030, "all records")
        await member.stop()
        assert log.committed() == {0: 30, 1: 5_000}
        assert max(taken) <= limit + 2 * queue  # what the client had prefetched, and what it fetched meanwhile

    run(scenario())


def test_a_static_member_comes_back_without_a_rebalance(stack: RunningStack, protocol: GroupProtocol) -> None:
    log = Log(stack, partitions=4, protocol=protocol)
    log.fill(400)

    async def scenario() -> None:
        other, first = Recorder(log.as_instance("a")), Recorder(log.as_instance("b"))
        other.start(Chunk.finish)
        await eventually(lambda: len(other.consumer.assignment) == 4, "all partitions")
        first.start(Chunk.finish)
        await eventually(lambda: len(other.consumer.assignment) == len(first.consumer.assignment) == 2, "a balance")
        kept, changes = first.consumer.assignment, len(other.assignments)
        await first.stop()
        again = Recorder(log.as_instance("b"))
        again.start(Chunk.finish)
        await eventually(lambda: again.consumer.assignment == kept, "the same partitions again")
        assert len(other.assignments) == changes
        await again.stop()
        await other.stop()
        assert other.errors + first.errors + again.errors == []

    run(scenario())


def test_what_a_member_finishes_after_the_group_has_expelled_it_commits_nothing(stack: RunningStack) -> None:
    """Its drain takes longer than it may stay away from the group (`max.poll.interval.ms`)."""
    log = Log(stack, partitions=2, protocol=GroupProtocol.CONSUMER)
    log.fill(200)
    log.kafka = log.kafka.model_copy(update={"options": {"max.poll.interval.ms": 1_000}})

    async def scenario() -> None:
        slow = Recorder(log, replace(POLICY, drain_seconds=3.0))
        slow.start()
        await eventually(lambda: len(slow.values) >= 200, "all records")
        first = list(slow.chunks)  # it may be given a partition again at once, and those chunks are its own
        other = Recorder(log)
        other.start()
        await eventually(lambda: frozenset() in slow.assignments, "the slow member to hear that it is out")
        for chunk in first:
            chunk.finish()
        await eventually(lambda: len(slow.values) + len(other.values) >= 400, "all records again, at both members")
        await slow.vanish()
        await other.vanish()
        assert log.committed() == {}
        assert slow.errors + other.errors == []

    run(scenario())


def test_an_unknown_topic_is_refused_by_name(stack: RunningStack) -> None:
    log = Log(stack, partitions=1, protocol=GroupProtocol.CLASSIC)
    log.topic = "no-such-topic"

    async def scenario() -> None:
        member = Recorder(log)
        with pytest.raises(PermanentKafkaError, match=r"no-such-topic.*eventstore topics apply"):
            member.start()
        await member.vanish()

    run(scenario())
