"""Records of one topic between offsets, for whoever looks and is not a member of any group."""

import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, Self

from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka import KafkaError as Code

from eventstore.config import KafkaSettings
from eventstore.errors import TransientKafkaError
from eventstore.stream.client import client_config, open_client
from eventstore.stream.failures import kafka_error, mapped

REQUEST_TIMEOUT: Final = 15.0
"""Seconds until a request to the brokers is given up."""
PATIENCE: Final = 0.1
"""Seconds that one look waits for a full batch."""
SILENCE: Final = 30.0
"""Seconds without any record after which reading is given up."""
LOOK: Final = 500
"""Most records of one look."""

Progress = Callable[[int, int], None]
"""Hears how many offsets have been passed, of how many."""


def unheard(_passed: int, _total: int) -> None:
    pass


class Coming:
    """Which records between first offsets and ends are still to come. Pure."""

    def __init__(self, bounds: Mapping[int, tuple[int, int]]) -> None:
        """By partition, the first offset and the one before which it ends."""
        self._ends = {partition: end for partition, (start, end) in bounds.items() if end > start}
        self.total = sum(end - bounds[partition][0] for partition, end in self._ends.items())
        self.passed = 0

    @property
    def partitions(self) -> AbstractSet[int]:
        return set(self._ends)

    def takes(self, partition: int, offset: int) -> bool:
        """Whether the record that has come is one of them."""
        end = self._ends.get(partition)
        if end is None:
            return False
        if offset >= end - 1:
            del self._ends[partition]
        self.passed += offset < end
        return offset < end

    def ended(self, partition: int, offset: int) -> None:
        """The partition ends at this offset, for now.

        Past the end it is done with: nobody has to wait for a record where compaction or a transaction left a gap. Before it,
        the broker may not know yet of what others have confirmed, as a new leader does not, and records are still to come.
        """
        if offset >= self._ends.get(partition, offset + 1):
            del self._ends[partition]


class RangeReader:
    """Use as a context manager, on one thread at a time.

    Every method raises TransientKafkaError or PermanentKafkaError when the brokers cannot or will not answer.
    """

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        """Raises ConfigurationError if librdkafka refuses a setting."""
        self._topic = topic
        self._doing = f"reading {topic}"
        self._consumer = open_client(
            Consumer,
            client_config(kafka)
            | {
                "group.id": "eventstore-reader",  # never joined: librdkafka wants one to be named
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": 16 * 1_024,
                # what we read is there already; at the default of 500 a new range waits for the end of the last one's fetch
                "fetch.wait.max.ms": 50,
                # while we read, retention may take what we were about to read
                "auto.offset.reset": "earliest",
            },
        )

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
        self, bounds: Mapping[int, tuple[int, int]], on_progress: Progress = unheard
    ) -> Iterator[list[Message]]:
        """The records from each partition's first offset up to before its second, a batch at a time."""
        coming = Coming(bounds)
        places = [TopicPartition(self._topic, partition, bounds[partition][0]) for partition in coming.partitions]
        with mapped(self._doing):
            self._consumer.assign(places)
            self._consumer.resume(places)  # a partition stays paused from one assignment to the next
        heard = time.monotonic()
        while left := coming.partitions:
            with mapped(self._doing):
                messages = self._consumer.consume(LOOK, PATIENCE)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE:
                raise TransientKafkaError(
                    f"{self._doing}: expected {coming.total - coming.passed} more records, got none for {SILENCE:.0f} s; "
                    "check that the brokers are up, then try again"
                )
            found = self._wanted(messages, coming)
            if done := left - coming.partitions:
                # else the rest would be fetched for nothing until all others are at their ends
                self._consumer.pause([TopicPartition(self._topic, partition) for partition in done])
            on_progress(coming.passed, coming.total)
            if found:
                yield found
                heard = time.monotonic()  # the silence is the brokers', not that of whoever works on these
        on_progress(coming.total, coming.total)

    def _wanted(self, messages: list[Message], coming: Coming) -> list[Message]:
        found = []
        for message in messages:
            if (error := message.error()) is None:
                if coming.takes(message.partition(), message.offset()):
                    found.append(message)
            elif error.code() == Code._PARTITION_EOF:  # noqa: SLF001 — so the client spells it
                coming.ended(message.partition(), message.offset())
            else:
                raise kafka_error(error, self._doing)
        return found
