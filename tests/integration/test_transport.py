"""Chunks through a Faust app on a real Kafka."""

import asyncio
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from eventstore.config import KafkaSettings, WorkerSettings
from eventstore.stream.chunk import Chunk, Haul
from eventstore.stream.group import consumer_policy, group_config
from eventstore.stream.lag import GroupLag
from eventstore.stream.transport import ChunkApp
from tests.own_topics import own_topics
from tests.stacks import RunningStack
from tests.waiting import eventually

pytestmark = pytest.mark.integration

RECORDS = 3_000


def filled(kafka: KafkaSettings, topic: str) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(RECORDS):
        producer.produce(topic, b"%d" % number)
    assert producer.flush(30) == 0


def chunk_app(kafka: KafkaSettings) -> ChunkApp:
    worker = WorkerSettings(group=f"app-{uuid4().hex[:12]}", chunk_records=100, commit_interval=0.1)
    return ChunkApp(worker.group, kafka_config=group_config(kafka, worker), policy=consumer_policy(worker))


def test_faust_books_nothing_and_only_finished_chunks_are_committed(stack: RunningStack) -> None:
    with own_topics(stack) as topics:
        kafka = topics.settings.kafka
        filled(kafka, topics.events)
        seen: list[int] = []

        async def scenario() -> str:
            app = chunk_app(kafka)

            @app.agent(app.chunk_topic(topics.events), name="reader")  # type: ignore[untyped-decorator]
            async def reader(chunks: object) -> None:
                async for chunk in chunks:  # type: ignore[attr-defined]
                    assert isinstance(chunk, Chunk)
                    if (haul := chunk.haul()) is not None:
                        seen.extend(int(value) for _, _, value in haul.records())
                        haul.finish()

            await app.start()
            await eventually(lambda: len(seen) >= RECORDS, "all records")
            booked = {tp: len(offsets) for tp, offsets in app.consumer._acked_index.items() if offsets}
            await app.stop()
            assert booked == {}, "Faust keeps offsets that nobody will ever take away"
            assert app.failure is None
            return str(app.conf.id)

        group = asyncio.run(scenario())
        assert sorted(seen) == list(range(RECORDS))
        with GroupLag(kafka, group, topics.events) as standing:
            assert standing.read().lag == 0


def test_an_agent_takes_along_what_waits_behind_its_chunk(stack: RunningStack) -> None:
    with own_topics(stack) as topics:
        kafka = topics.settings.kafka
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
        published: list[int] = []
        hauls: list[Haul] = []

        def publish_one_to_each_partition() -> None:
            for partition in range(topics.settings.topics.partitions):
                producer.produce(topics.events, b"%d" % len(published), partition=partition)
                published.append(len(published))
            assert producer.flush(30) == 0

        async def scenario() -> None:
            app = chunk_app(kafka)

            @app.agent(app.chunk_topic(topics.events), name="hauler")  # type: ignore[untyped-decorator]
            async def hauler(chunks: object) -> None:
                async for chunk in chunks:  # type: ignore[attr-defined]
                    if (haul := chunk.haul()) is not None:
                        hauls.append(haul)
                        haul.finish()

            await app.start()

            def several_came_together() -> bool:
                publish_one_to_each_partition()
                return any(len(haul.chunks) > 1 for haul in hauls)

            await eventually(several_came_together, "chunks of several partitions in one haul")
            await eventually(lambda: sum(map(len, hauls)) >= len(published), "all records")
            await app.stop()
            assert app.failure is None

        asyncio.run(scenario())
        assert sorted(int(value) for haul in hauls for value in haul.values()) == published


def test_an_agent_that_raises_ends_the_app_and_its_chunk_is_not_committed(stack: RunningStack) -> None:
    with own_topics(stack) as topics:
        kafka = topics.settings.kafka
        filled(kafka, topics.events)

        async def scenario() -> str:
            app = chunk_app(kafka)

            @app.agent(app.chunk_topic(topics.events), name="broken")  # type: ignore[untyped-decorator]
            async def broken(chunks: object) -> None:
                async for chunk in chunks:  # type: ignore[attr-defined]
                    chunk.claim()
                    raise ArithmeticError("a bug in the agent")

            await app.start()
            await eventually(app.failed.is_set, "the app to fail")
            await app.stop()
            assert isinstance(app.failure, ArithmeticError)
            return str(app.conf.id)

        group = asyncio.run(scenario())
        with GroupLag(kafka, group, topics.events) as standing:
            assert standing.read().lag == RECORDS
