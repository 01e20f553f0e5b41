"""Records of a cluster whose circuit is open go to its retry topic: as they were, and where they first stood."""

from collections.abc import Sequence
from typing import Self

import msgspec

from eventstore.config import KafkaSettings, ProducerSettings, TopicSettings
from eventstore.events import Coordinates
from eventstore.stream.chunk import Record
from eventstore.stream.confirmed import ConfirmedProducer
from eventstore.stream.headers import with_origin
from eventstore.stream.producer import RecordProducer
from eventstore.stream.topics import retry_topic


class Divert(msgspec.Struct, frozen=True):
    """One record on its way to a retry topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class DivertProducer:
    """Publishes records to retry topics and says when they are safe. A record diverted twice makes one row."""

    def __init__(self, kafka: KafkaSettings, producer: ProducerSettings, topics: TopicSettings) -> None:
        """Raises ConfigurationError if librdkafka refuses a setting."""
        self._topics = topics
        self._producer = ConfirmedProducer(RecordProducer(kafka, producer, topics.retry_prefix), _publish, "diverts")

    async def send(self, cluster: str, records: Sequence[Record]) -> None:
        """Publish the records for this cluster; on return Kafka has confirmed every one.

        Raises:
            TransientKafkaError: Kafka did not confirm in time.
            PermanentKafkaError: the topic is missing, access is refused, a record is too large for the topic.
        """
        topic = retry_topic(self._topics, cluster)
        await self._producer.send([divert(topic, record) for record in records])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.close()


def divert(topic: str, record: Record) -> Divert:
    """What goes to the retry topic: the record's own bytes and headers, and its coordinates unless it has an origin."""
    place = Coordinates(record.topic(), record.partition(), record.offset())
    return Divert(topic, record.key(), record.value(), with_origin(record.headers() or [], place))


def _publish(producer: RecordProducer, item: Divert) -> None:
    producer.publish(item.key, item.value, item.headers, topic=item.topic)
