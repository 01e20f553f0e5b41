"""The dead-letter topic read from its start to where it ended when reading began, and replayed.

Which letters have been replayed is written into the topic itself: a marker in the letters' own partition, after them,
so that it outlives them and needs no other store. It is exact whatever `--where` chose; a consumer group's offset could
not say "these, but not those between them".
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from eventstore.config import KafkaSettings
from eventstore.stream.dead_letter import DeadLetter, Marker, Stranger, Where, read
from eventstore.stream.producer import RecordProducer
from eventstore.stream.range_reader import Progress, RangeReader, unheard

REPLAY_BATCH: Final = 500
"""Letters published between two confirmations; as many may be published twice if we are killed there ..."""
REPLAY_BYTES: Final = 8 * 2**20
"""... or as few as make this many bytes."""


class DeadLetterLog:
    """Every method raises TransientKafkaError or PermanentKafkaError when the brokers cannot or will not answer."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self.topic = topic
        self._kafka = kafka

    def scan(self, on_progress: Progress = unheard) -> Iterator[DeadLetter | Marker | Stranger]:
        """All records up to the present end, in order within each partition."""
        with RangeReader(self._kafka, self.topic) as reader:
            for records in reader.between(reader.bounds(), on_progress):
                yield from map(_read, records)

    def at(self, partition: int, offset: int) -> DeadLetter | Marker | Stranger | None:
        """The record at one place; None if the topic does not hold it."""
        with RangeReader(self._kafka, self.topic) as reader:
            start, end = reader.bounds().get(partition, (0, 0))
            if not start <= offset < end:
                return None
            found = next(reader.between({partition: (offset, offset + 1)}), None)
            return _read(found[0]) if found else None

    def replayed(self, on_progress: Progress = unheard) -> set[tuple[str, int, int]]:
        """(target topic, partition, offset) of every letter that has been replayed."""
        return {
            (record.target, record.partition, offset)
            for record in self.scan(on_progress)
            if isinstance(record, Marker)
            for offset in record.offsets
        }


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

    def run(self, on_progress: Progress = unheard, *, dry_run: bool = False) -> None:
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
