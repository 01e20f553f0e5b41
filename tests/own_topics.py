"""Topics of one test on a real Kafka, and what they hold."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import uuid4

from confluent_kafka import Consumer, TopicPartition

from eventstore.config import KafkaSettings, Settings, load_settings
from eventstore.stream.admin import TopicAdmin
from eventstore.stream.topics import wanted_topics
from tests.stacks import RunningStack
from tests.waiting import until


class Published(NamedTuple):
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def topic_names(name: str) -> dict[str, Any]:
    """Topic settings under which nothing is shared with anybody."""
    tables = {table: f"{name}.{table}" for table in ("control", "erasures", "marks", "replays")}
    return {"events": name, "dead_letters": f"{name}.dlq", "retry_prefix": f"{name}.retry", **tables}


class OwnTopics:
    """Settings that name an event topic and a dead-letter topic nobody else uses."""

    def __init__(self, stack: RunningStack, partitions: int) -> None:
        name = f"test-{uuid4().hex[:12]}"
        self.kafka = {"bootstrap_servers": stack.bootstrap_servers}
        self.registry = stack.registry_path
        self.topics = topic_names(name) | {"partitions": partitions}

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
            "EVENTSTORE_REGISTRY": str(self.registry),
            **{f"EVENTSTORE_TOPICS__{name.upper()}": str(value) for name, value in self.topics.items()},
            "COLUMNS": "200",
        }

    def admin(self) -> TopicAdmin:
        return TopicAdmin(self.settings.kafka)

    def records(self, topic: str) -> list[Published]:
        """Everything a topic holds, partition by partition in order."""
        return records_of(self.settings.kafka, topic)

    @property
    def kafka_config(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.kafka["bootstrap_servers"]}


def records_of(kafka: KafkaSettings, topic: str) -> list[Published]:
    """Everything a topic holds, partition by partition in order."""
    found: list[Published] = []
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "reader", "enable.auto.commit": False}
    )
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        total = TopicAdmin(kafka).topics([topic])[topic].records

        def complete() -> bool:
            for message in consumer.consume(1_000, 0.1):
                assert message.error() is None, message.error()
                found.append(Published(message.partition(), message.key(), message.value(), message.headers() or []))
            return len(found) >= total

        until(complete, f"{total} records of {topic}")
    finally:
        consumer.close()
    return sorted(found, key=lambda record: record.partition)


@contextmanager
def own_topics(stack: RunningStack, partitions: int = 3, clusters: Collection[str] = ()) -> Iterator[OwnTopics]:
    """Topics that are there for the block, retry topics of these clusters among them."""
    made = OwnTopics(stack, partitions)
    wanted = wanted_topics(made.settings.topics, clusters)
    made.admin().apply(wanted)
    try:
        yield made
    finally:
        made.admin().delete([topic.name for topic in wanted])
