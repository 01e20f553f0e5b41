"""Topics of one test on a real Kafka, and what they hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import uuid4

from confluent_kafka import Consumer, TopicPartition

from eventstore.config import Settings, load_settings
from eventstore.stream.admin import TopicAdmin
from eventstore.stream.topics import wanted_topics
from tests.stacks import RunningStack
from tests.waiting import until


class Published(NamedTuple):
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class OwnTopics:
    """Settings that name an event topic and a dead-letter topic nobody else uses."""

    def __init__(self, stack: RunningStack, partitions: int) -> None:
        name = f"test-{uuid4().hex[:12]}"
        self.kafka = {"bootstrap_servers": stack.bootstrap_servers}
        self.topics = {"events": name, "dead_letters": f"{name}.dlq", "partitions": partitions}

    @property
    def settings(self) -> Settings:
        return self.with_topics()

    def with_topics(self, **changes: Any) -> Settings:
        return load_settings(kafka=self.kafka, topics=self.topics | changes)

    @property
    def events(self) -> str:
        return self.settings.topics.events

    @property
    def dead_letters(self) -> str:
        return self.settings.topics.dead_letters

    @property
    def environment(self) -> dict[str, str]:
        """For commands: they read their settings from it."""
        return {
            "EVENTSTORE_KAFKA__BOOTSTRAP_SERVERS": self.kafka["bootstrap_servers"],
            "EVENTSTORE_TOPICS__EVENTS": self.events,
            "EVENTSTORE_TOPICS__DEAD_LETTERS": self.dead_letters,
            "EVENTSTORE_TOPICS__PARTITIONS": str(self.topics["partitions"]),
            "COLUMNS": "200",
        }

    def admin(self) -> TopicAdmin:
        return TopicAdmin(self.settings.kafka)

    def records(self, topic: str) -> list[Published]:
        """Everything a topic holds, partition by partition in order."""
        found: list[Published] = []
        consumer = Consumer(self.kafka_config | {"group.id": "reader", "enable.auto.commit": False})
        try:
            partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
            consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
            total = self.admin().topics([topic])[topic].records

            def complete() -> bool:
                for message in consumer.consume(1_000, 0.1):
                    assert message.error() is None, message.error()
                    found.append(
                        Published(message.partition(), message.key(), message.value(), message.headers() or [])
                    )
                return len(found) >= total

            until(complete, f"{total} records of {topic}")
        finally:
            consumer.close()
        return sorted(found, key=lambda record: record.partition)

    @property
    def kafka_config(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.kafka["bootstrap_servers"]}


@contextmanager
def own_topics(stack: RunningStack, partitions: int = 3) -> Iterator[OwnTopics]:
    """Topics that are there for the block."""
    made = OwnTopics(stack, partitions)
    made.admin().apply(wanted_topics(made.settings.topics))
    try:
        yield made
    finally:
        made.admin().delete([made.events, made.dead_letters])
