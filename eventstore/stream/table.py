"""A compacted topic as a small table: the last value of each key, kept by Kafka and not by the store that may be lost.

It has one partition, so that everybody hears all changes in one order.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from typing import Final, Self, TypeVar

import msgspec
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import KafkaError as Code

from eventstore.config import KafkaSettings, ProducerSettings
from eventstore.errors import PermanentKafkaError, TransientKafkaError
from eventstore.stream.client import client_config, open_client
from eventstore.stream.failures import TRANSIENT, kafka_error, mapped
from eventstore.stream.producer import RecordProducer

REQUEST_TIMEOUT: Final = 15.0
"""Seconds until a request to the brokers is given up."""
PATIENCE: Final = 0.5
"""Seconds that one look waits for a change; a change that comes earlier ends it. As long may a stop take."""
SILENCE: Final = 30.0
"""Seconds without any entry after which reading is given up."""
LOOK: Final = 1_000
"""Most entries of one look."""

T = TypeVar("T")
Entry = tuple[str, bytes | None]
OnChange = Callable[[str, bytes | None], None]
"""Hears a key and its new value; None: the key was deleted."""


class TopicTable:
    """Every method raises TransientKafkaError or PermanentKafkaError when the brokers cannot or will not answer."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self.topic = topic
        self._kafka = kafka

    def read(self) -> dict[str, bytes]:
        """All entries as of the call. Blocks."""
        entries: dict[str, bytes] = {}
        for key, value in self.changes():
            if value is None:
                entries.pop(key, None)
            else:
                entries[key] = value
        return entries

    def changes(self) -> list[Entry]:
        """The same with entries that were replaced or deleted lately, in the order in which they were put. Blocks."""
        changes: list[Entry] = []
        with _Reader(self._kafka, self.topic) as reader:
            while not reader.caught_up():
                changes += reader.look()
        return changes

    def put(self, key: str, value: bytes | None) -> None:
        """Set an entry, or delete it by None. Blocks until all in-sync replicas have it. For one thread at a time."""
        self._producer.publish(key.encode(), value, partition=0)
        self._producer.confirm()

    def decoded(self, key: str, value: bytes, kind: type[T]) -> T:
        """An entry's value, written as JSON.

        Raises:
            PermanentKafkaError: it is not of this kind.
        """
        try:
            return msgspec.json.decode(value, type=kind)
        except msgspec.MsgspecError as error:
            raise PermanentKafkaError(
                f"{self.topic}: expected {kind.__name__} as JSON under {key!r}, got one that says: {error}; "
                "a newer Eventstore may have written it: upgrade this one"
            ) from error

    @cached_property
    def _producer(self) -> RecordProducer:
        return RecordProducer(self._kafka, ProducerSettings(linger=0.001), self.topic)

    @asynccontextmanager
    async def follow(self, on_change: OnChange) -> AsyncIterator[asyncio.Task[None]]:
        """Within it, `on_change` hears on the event loop every entry there is and every change as it is made.

        Entered when all entries as of now have been heard. Gives the task that goes on listening: it outlasts brokers
        that are away, ends only with an error that will last, and then nothing more is heard: watch it.
        """
        reading = asyncio.get_running_loop().run_in_executor
        with ThreadPoolExecutor(1, thread_name_prefix=self.topic) as thread:
            reader = _Reader(self._kafka, self.topic)
            listening = None
            try:
                await reading(thread, reader.open)
                while not reader.caught_up():
                    _tell(await reading(thread, reader.look), on_change)

                async def listen() -> None:
                    while True:
                        _tell(await reading(thread, reader.listen), on_change)

                listening = asyncio.create_task(listen())
                yield listening
            finally:
                if listening is not None:
                    listening.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await listening
                # after the look that is under way: the client must not be closed beneath it
                await asyncio.shield(reading(thread, reader.close))


def _tell(entries: list[Entry], on_change: OnChange) -> None:
    for key, value in entries:
        on_change(key, value)


class _Reader:
    """Reads one partition from its start, for one thread at a time."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._doing = f"reading {topic}"
        self._partition = TopicPartition(topic, 0)
        self._next = self._end = 0
        self._heard = time.monotonic()
        self._consumer = open_client(
            Consumer,
            client_config(kafka)
            | {
                "group.id": "eventstore-table",  # never joined: librdkafka wants one to be named
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": 4 * 1_024,
                # compaction may take what we were about to read: a later value of the same key follows
                "auto.offset.reset": "earliest",
            },
        )

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        topic = self._partition.topic
        with mapped(self._doing):
            found = self._consumer.list_topics(topic, timeout=REQUEST_TIMEOUT).topics[topic]
            if found.error is not None:
                raise kafka_error(found.error, self._doing)
            start, self._end = self._consumer.get_watermark_offsets(self._partition, timeout=REQUEST_TIMEOUT)
            self._next = start
            self._consumer.assign([TopicPartition(topic, 0, start)])
        self._heard = time.monotonic()

    def close(self) -> None:
        self._consumer.close()

    def caught_up(self) -> bool:
        """Whether everything that was there at `open` has been given."""
        return self._next >= self._end

    def look(self) -> list[Entry]:
        """What has come, after at most PATIENCE seconds; gives up when nothing comes that must be there."""
        entries = self._look(passing=frozenset())
        if entries:
            self._heard = time.monotonic()
        elif time.monotonic() - self._heard > SILENCE:
            raise TransientKafkaError(
                f"{self._doing}: expected the entries up to offset {self._end}, got none from {self._next} for "
                f"{SILENCE:.0f} s; check that the brokers are up, then try again"
            )
        return entries

    def listen(self) -> list[Entry]:
        """The same, for as long as it takes: the client itself goes on trying while brokers are away."""
        return self._look(passing=TRANSIENT)

    def _look(self, passing: frozenset[int]) -> list[Entry]:
        entries: list[Entry] = []
        with mapped(self._doing):
            first = self._consumer.poll(PATIENCE)
            messages = [] if first is None else [first, *self._consumer.consume(LOOK, 0)]
        for message in messages:
            error = message.error()
            if error is None:
                self._next = message.offset() + 1
                entries.append(((message.key() or b"").decode(errors="replace"), message.value()))
            elif error.code() == Code._PARTITION_EOF:  # noqa: SLF001 — so the client spells it
                self._next = max(self._next, message.offset())
            elif error.code() not in passing:
                raise kafka_error(error, self._doing)
        return entries
