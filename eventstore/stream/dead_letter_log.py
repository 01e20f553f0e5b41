"""The dead-letter topic read from its start to where it ended when reading began, and replayed.

Which letters have been replayed is written into the topic itself: a marker in the letters' own partition, after them,
so that it outlives them and needs no other store. It is exact whatever `--where` chose; a consumer group's offset could
not say "these, but not those between them".
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Self

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import KafkaError as Code

from eventstore.config import KafkaSettings
from eventstore.errors import TransientKafkaError
from eventstore.stream.client import client_config, open_client
from eventstore.stream.dead_letter import DeadLetter, Marker, Stranger, Where, read
from eventstore.stream.failures import kafka_error, mapped
from eventstore.stream.producer import RecordProducer

REQUEST_TIMEOUT: Final = 15.0
"""Seconds until a request to the brokers is given up."""
PATIENCE: Final = 0.1
"""Seconds that one look waits for a full batch."""
SILENCE: Final = 30.0
"""Seconds without any record after which reading is given up."""
REPLAY_BATCH: Final = 500
"""Letters published between two confirmations; as many may be published twice if we are killed there ..."""
REPLAY_BYTES: Final = 8 * 2**20
"""... or as few as make this many bytes."""

Progress = Callable[[int, int], None]
"""Hears how many offsets have been passed, of how many."""


def _unheard(_passed: int, _total: int) -> None:
    pass


class DeadLetterLog:
    """Every method raises TransientKafkaError or PermanentKafkaError when the brokers cannot or will not answer."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self.topic = topic
        self._config = client_config(kafka) | {
            "group.id": "eventstore-dlq",  # never joined: librdkafka wants one to be named
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": 16 * 1_024,
            # while we read, retention may take what we were about to read
            "auto.offset.reset": "earliest",
        }

    def scan(self, on_progress: Progress = _unheard) -> Iterator[DeadLetter | Marker | Stranger]:
        """All records up to the present end, in order within each partition."""
        with _Reader(self._config, self.topic) as reader:
            bounds = reader.bounds()
            yield from reader.between(bounds, on_progress)

    def at(self, partition: int, offset: int) -> DeadLetter | Marker | Stranger | None:
        """The record at one place; None if the topic does not hold it."""
        with _Reader(self._config, self.topic) as reader:
            start, end = reader.bounds().get(partition, (0, 0))
            if not start <= offset < end:
                return None
            return next(reader.between({partition: (offset, offset + 1)}, _unheard), None)

    def replayed(self, on_progress: Progress = _unheard) -> set[tuple[str, int, int]]:
        """(target topic, partition, offset) of every letter that has been replayed."""
        return {
            (record.target, record.partition, offset)
            for record in self.scan(on_progress)
            if isinstance(record, Marker)
            for offset in record.offsets
        }


class _Reader:
    def __init__(self, config: dict[str, Any], topic: str) -> None:
        self._topic = topic
        self._doing = f"reading {topic}"
        self._consumer = open_client(Consumer, config)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def bounds(self) -> dict[int, tuple[int, int]]:
        """The first and the next offset of each partition."""
        with mapped(self._doing):
            metadata = self._consumer.list_topics(self._topic, timeout=REQUEST_TIMEOUT).topics[self._topic]
            if metadata.error is not None:
                raise kafka_error(metadata.error, self._doing)
            return {
                partition: self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, partition), timeout=REQUEST_TIMEOUT
                )
                for partition in metadata.partitions
            }

    def between(
        self, bounds: dict[int, tuple[int, int]], on_progress: Progress
    ) -> Iterator[DeadLetter | Marker | Stranger]:
        ends = {partition: end for partition, (start, end) in bounds.items() if end > start}
        total = sum(end - bounds[partition][0] for partition, end in ends.items())
        with mapped(self._doing):
            self._consumer.assign([TopicPartition(self._topic, p, bounds[p][0]) for p in ends])
        passed = 0
        heard = time.monotonic()
        while ends:
            with mapped(self._doing):
                messages = self._consumer.consume(REPLAY_BATCH, PATIENCE)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE:
                raise TransientKafkaError(
                    f"{self._doing}: expected {total - passed} more records, got none for {SILENCE:.0f} s; "
                    "check that the brokers are up, then try again"
                )
            for message in messages:
                if self._in_range(message, ends):
                    passed += 1
                    yield _read(message)
            on_progress(passed, total)
        on_progress(total, total)

    def _in_range(self, message: Any, ends: dict[int, int]) -> bool:
        """Whether the record is one to give; forgets a partition whose end it shows."""
        partition, error = message.partition(), message.error()
        if error is not None:
            if error.code() != Code._PARTITION_EOF:  # noqa: SLF001 — so the client spells it
                raise kafka_error(error, self._doing)
            ends.pop(partition, None)
            return False
        if (end := ends.get(partition)) is None:
            return False
        if message.offset() >= end - 1:
            del ends[partition]
        return bool(message.offset() < end)


def _read(message: Any) -> DeadLetter | Marker | Stranger:
    return read(message.partition(), message.offset(), message.key(), message.value(), message.headers() or [])


@dataclass(slots=True)
class Replay:
    """Republishes dead letters: original bytes, key and headers, and where each first stood.

    Safe to repeat: letters with a marker are passed over, and a letter published twice makes the same row. Letters that
    are rejected again come back as new ones, which this run does not see.
    """

    log: DeadLetterLog
    producer: RecordProducer
    where: Where
    to: str | None = None
    """A topic for all of them instead of each one's source."""
    matched: int = 0
    already: int = 0
    """Matched, but replayed to that topic before."""
    published: int = 0
    _batch: list[DeadLetter] = field(default_factory=list)
    _batch_bytes: int = 0

    def run(self, on_progress: Progress = _unheard, *, dry_run: bool = False) -> None:
        """Replay what matches; its counts are true at any time, after an error too.

        Raises:
            KafkaError: reading, publishing or marking failed; run it again.
        """
        for letter in self._pending(on_progress):
            if dry_run:
                continue
            self._batch.append(letter)
            self._batch_bytes += len(letter.value or b"")
            if len(self._batch) == REPLAY_BATCH or self._batch_bytes >= REPLAY_BYTES:
                self._publish()
        self._publish()

    def _pending(self, on_progress: Progress) -> Iterator[DeadLetter]:
        replayed = self.log.replayed()
        for record in self.log.scan(on_progress):
            if not isinstance(record, DeadLetter) or not self.where.matches(record):
                continue
            self.matched += 1
            if (self._target(record), record.partition, record.offset) in replayed:
                self.already += 1
            else:
                yield record

    def _target(self, letter: DeadLetter) -> str:
        return self.to or letter.source.topic

    def _publish(self) -> None:
        """Publish the batch, wait for Kafka's confirmation, and only then mark it."""
        marks: dict[tuple[int, str], list[int]] = {}
        for letter in self._batch:
            target = self._target(letter)
            self.producer.publish(letter.key, letter.value, letter.headers_for_replay(), topic=target)
            marks.setdefault((letter.partition, target), []).append(letter.offset)
        self.producer.confirm()
        self.published += len(self._batch)
        self._batch, self._batch_bytes = [], 0
        for (partition, target), offsets in marks.items():
            marker = Marker(partition, target, offsets)
            self.producer.publish(None, marker.value(), marker.headers(), topic=self.log.topic, partition=partition)
        self.producer.confirm()
