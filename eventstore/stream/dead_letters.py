"""Rejected records go to the dead-letter topic: the original bytes, why, and where they stood.

The worker acknowledges a reject only when `DeadLetterProducer.send` has returned: by then every in-sync replica has it.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Self

import msgspec

from eventstore import __version__
from eventstore.config import KafkaSettings, ProducerSettings
from eventstore.events import Coordinates, Rejected
from eventstore.stream import headers as names
from eventstore.stream.confirmed import ConfirmedProducer
from eventstore.stream.producer import RecordProducer


class Reject(msgspec.Struct, frozen=True):
    """A record that cannot be stored, as Kafka gave it."""

    rejected: Rejected
    coordinates: Coordinates
    key: bytes | None
    value: bytes | None
    """None for a tombstone, which stays one."""
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int
    """Kafka's timestamp of the record; -1 if it had none."""


def dead_letter_headers(reject: Reject, now: float) -> list[tuple[str, bytes | None]]:
    """The record's own headers, then ours. `now` is in seconds since the epoch."""
    topic, partition, offset = reject.coordinates
    ours = (
        reject.rejected.reason.value,
        reject.rejected.detail,
        topic,
        str(partition),
        str(offset),
        datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        __version__,
        str(reject.timestamp_ms),
    )
    return [*reject.headers, *zip(names.DEAD_LETTER, map(names.text_value, ours), strict=True)]


class DeadLetterProducer:
    """Publishes rejects and says when they are safe."""

    def __init__(
        self, kafka: KafkaSettings, producer: ProducerSettings, topic: str, clock: Callable[[], float] = time.time
    ) -> None:
        """Raises ConfigurationError if librdkafka refuses a setting."""
        self.topic = topic
        self._clock = clock
        self._producer = ConfirmedProducer(RecordProducer(kafka, producer, topic), self._publish, "dead-letters")

    async def send(self, rejects: Sequence[Reject]) -> None:
        """Publish the rejects; on return Kafka has confirmed every one. May be called by several tasks at once.

        After an error some may have been published: sending them again makes a second dead letter of the same origin,
        which replays to the same row.

        Raises:
            TransientKafkaError: Kafka did not confirm in time.
            PermanentKafkaError: the topic is missing, access is refused, a record is too large for the topic.
        """
        await self._producer.send(rejects)

    def _publish(self, producer: RecordProducer, reject: Reject) -> None:
        producer.publish(reject.key, reject.value, dead_letter_headers(reject, self._clock()))

    async def close(self) -> None:
        """Wait for what is being sent and end the thread."""
        await self._producer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
