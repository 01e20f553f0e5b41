"""The thread that reads the partitions of the keys that are watched, at their ends, and no others."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from eventstore.config import KafkaSettings
from eventstore.stream.chunk import Record
from eventstore.stream.client import client_config, open_client
from eventstore.stream.failures import TRANSIENT, kafka_error, mapped
from eventstore.stream.watch import Ending, Watch

log = structlog.stdlib.get_logger(__name__)

PATIENCE: Final = 0.02
"""Seconds that one look waits for a record; one that comes earlier ends it. As long may a newcomer wait."""
LOOK: Final = 1_000
"""Most records of one look."""
QUEUE_KIBIBYTES: Final = 4 * 1_024
NOTE_SECONDS: Final = 1.0
"""Between two notes of how far partitions have been read without anything for their watchers."""


class Follower:
    """The thread that reads. What the loop wants of it goes through a queue; what it finds comes back in order."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._topic = topic
        self._loop = asyncio.get_running_loop()
        self._wanted: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._watched: dict[int, dict[bytes, list[Watch]]] = {}
        self._next: dict[int, int] = {}
        """The offset of each partition that is read next."""
        self._noted = time.monotonic()
        self._consumer = open_client(
            Consumer,
            client_config(kafka)
            | {
                "group.id": "eventstore-live",  # never joined: librdkafka wants one to be named
                "enable.auto.commit": False,
                "auto.offset.reset": "error",  # never jump: readers come again and are told
                # a partition that is added waits until the request under way has been answered
                "fetch.wait.max.ms": 50,
                "fetch.error.backoff.ms": 100,
                "fetch.queue.backoff.ms": 20,
                "queued.max.messages.kbytes": QUEUE_KIBIBYTES,
            },
        )
        self._thread = threading.Thread(target=self._run, name="tail", daemon=True)
        self._thread.start()

    def begin(self, watch: Watch) -> Future[None]:
        """Done when the watch hears; its start is set then."""
        done: Future[None] = Future()

        def add() -> None:
            if not done.set_running_or_notify_cancel():
                return  # given up meanwhile: to answer it would end this thread
            try:
                watch.start = self._add(watch)
            except Exception as error:  # noqa: BLE001 — it is the reader's to tell
                done.set_exception(error)
            else:
                done.set_result(None)

        self._wanted.put(add)
        return done

    def leave(self, watch: Watch) -> None:
        self._wanted.put(lambda: self._remove(watch))

    def close(self) -> None:
        """Blocks until the thread has ended."""
        self._wanted.put(None)
        self._thread.join()

    def _run(self) -> None:
        while self._obey():
            try:
                self._look()
            except Exception as error:
                log.exception("the live feed has failed", error=str(error))
                self._end(list(self._watched), Ending.FAILED)
        self._consumer.close()

    def _obey(self) -> bool:
        """Do what is wanted; without anybody to read for, wait for it. False: end."""
        while True:
            try:
                wanted = self._wanted.get(block=not self._watched)
            except Empty:
                return True
            if wanted is None:
                return False
            wanted()

    def _look(self) -> None:
        first = self._consumer.poll(PATIENCE)
        messages = [] if first is None else [first, *self._consumer.consume(LOOK, 0)]
        found = [pair for message in messages for pair in self._readers(message)]
        if found:
            self._tell(lambda: _hand_over(found))
        if (now := time.monotonic()) - self._noted > NOTE_SECONDS:
            self._noted = now
            self._note()

    def _readers(self, message: Any) -> Iterable[tuple[Watch, Record]]:
        partition = message.partition()
        watched = self._watched.get(partition)
        if watched is None:
            return
        if (fault := message.error()) is not None:
            if fault.code() not in TRANSIENT:
                error = kafka_error(fault, f"following {self._topic}/{partition}")
                log.warning("the live feed of a partition has ended", error=str(error))
                self._end([partition], Ending.FAILED)
            return
        offset = message.offset()
        self._next[partition] = offset + 1
        for watch in watched.get(message.key(), ()):
            if offset >= watch.start:
                yield watch, message

    def _note(self) -> None:
        """Tell watchers of quiet keys how far they are: from there they would go on, not from where they once began."""
        passed = [
            (watch, self._next[partition])
            for partition, watched in self._watched.items()
            for watches in watched.values()
            for watch in watches
        ]
        self._tell(lambda: _pass_on(passed))

    def _add(self, watch: Watch) -> int:
        """Read the partition for this watch as well; the first offset that it will hear."""
        watched = self._watched.get(watch.partition)
        if watched is None:
            place = TopicPartition(self._topic, watch.partition, watch.held.end)
            with mapped(f"following {self._topic}"):
                self._consumer.incremental_assign([place])
            watched = self._watched[watch.partition] = {}
            self._next[watch.partition] = watch.held.end
        watched.setdefault(watch.key, []).append(watch)
        return self._next[watch.partition]

    def _remove(self, watch: Watch) -> None:
        watched = self._watched.get(watch.partition, {})
        watches = watched.get(watch.key, [])
        if watch not in watches:
            return
        watches.remove(watch)
        if not watches:
            del watched[watch.key]
        if not watched:
            self._drop(watch.partition)

    def _drop(self, partition: int) -> None:
        del self._watched[partition], self._next[partition]
        with suppress(KafkaException):  # nobody is left whom it would trouble
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def _end(self, partitions: Iterable[int], why: Ending) -> None:
        for partition in partitions:
            ended = [watch for watches in self._watched[partition].values() for watch in watches]
            self._drop(partition)
            self._tell(partial(_end_all, ended, why))

    def _tell(self, what: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop has been closed: nobody is left to hear
            self._loop.call_soon_threadsafe(what)


def _end_all(watches: Iterable[Watch], why: Ending) -> None:
    for watch in watches:
        watch.end(why)


def _hand_over(found: Sequence[tuple[Watch, Record]]) -> None:
    for watch in {watch for watch, _ in found}:
        watch.expect()
    for watch, record in found:
        watch.hear(record)


def _pass_on(passed: Iterable[tuple[Watch, int]]) -> None:
    for watch, offset in passed:
        watch.passed(offset)
