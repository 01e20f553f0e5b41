"""Rejected records go to the dead-letter topic: the original bytes, why, and where they stood.

The worker acknowledges a reject only when `DeadLetterProducer.send` has returned: by then every in-sync replica has it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final, Self

import msgspec

from eventstore import __version__
from eventstore.config import KafkaSettings, ProducerSettings
from eventstore.events import Coordinates, Rejected
from eventstore.stream import headers as names
from eventstore.stream.producer import RecordProducer

MAX_SLICE_RECORDS: Final = 1_000
MAX_SLICE_BYTES: Final = 8 * 2**20
"""What is published before the next confirmation is awaited: this bounds memory, whatever the callers bring."""


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
    """Publishes rejects and says when they are safe.

    librdkafka sends and retries on its own threads; one thread of ours hands a slice over and waits in `flush`, which
    also runs the delivery callbacks: no task, future or wake-up of the event loop for each record, and nothing to do
    while nothing is rejected. (confluent_kafka's own asyncio producer cannot send headers in its batches.)
    """

    def __init__(
        self, kafka: KafkaSettings, producer: ProducerSettings, topic: str, clock: Callable[[], float] = time.time
    ) -> None:
        """Raises ConfigurationError if librdkafka refuses a setting."""
        self.topic = topic
        self._clock = clock
        self._producer = RecordProducer(kafka, producer, topic)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")

    async def send(self, rejects: Sequence[Reject]) -> None:
        """Publish the rejects; on return Kafka has confirmed every one. May be called by several tasks at once.

        After an error some may have been published: sending them again makes a second dead letter of the same origin,
        which replays to the same row.

        Raises:
            TransientKafkaError: Kafka did not confirm in time.
            PermanentKafkaError: the topic is missing, access is refused, a record is too large for the topic.
        """
        for records in slices(rejects):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._publish, records)

    def _publish(self, rejects: Sequence[Reject]) -> None:
        now = self._clock()
        for reject in rejects:
            self._producer.publish(reject.key, reject.value, dead_letter_headers(reject, now))
        self._producer.confirm()

    async def close(self) -> None:
        """Wait for what is being sent and end the thread."""
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def slices(rejects: Sequence[Reject]) -> Iterator[Sequence[Reject]]:
    """Runs of at most MAX_SLICE_RECORDS and, unless one record alone is larger, MAX_SLICE_BYTES."""
    start = size = 0
    for end, reject in enumerate(rejects):
        grown = size + len(reject.value or b"") + len(reject.key or b"")
        if end > start and (grown > MAX_SLICE_BYTES or end - start == MAX_SLICE_RECORDS):
            yield rejects[start:end]
            start, grown = end, grown - size
        size = grown
    if rejects:
        yield rejects[start:]
