"""The best simple Python: confluent-kafka in a loop, msgspec, single-partition batches through the driver.

No checks of what the events say, no dead letters, no retries, no rebalances; offsets are committed chunk by chunk.
"""

import os
import threading
import time
from collections import defaultdict
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from cassandra.cluster import Session
from cassandra.query import BatchStatement, BatchType, PreparedStatement
from confluent_kafka import Consumer

from tests.benchmarks.sinks.job import BUCKET_MS, Clock, Job, remaining_ttl

CHUNK = 2_000
BATCH_ROWS = 50
WINDOW = 256


class Event(msgspec.Struct, gc=False):
    tenant: str
    uid: str
    event: str
    message_id: UUID
    timestamp: datetime
    properties: msgspec.Raw


decode = msgspec.json.Decoder(Event).decode


class Sink:
    def __init__(self, session: Session, insert: PreparedStatement, clock: Clock) -> None:
        self._session = session
        self._insert = insert
        self._clock = clock
        self._window = threading.Semaphore(WINDOW)
        self._left = 0
        self._changed = threading.Condition()
        self._failure: BaseException | None = None

    def store(self, values: list[bytes]) -> None:
        """Group, send, and wait for every answer."""
        groups = defaultdict(list)
        for value in values:
            event = decode(value)
            ms = int(event.timestamp.timestamp() * 1_000)
            row = (
                event.uid, event.tenant, ms // BUCKET_MS, event.timestamp, event.message_id, event.event,
                bytes(event.properties).decode(), "{}", ms * 1_000, remaining_ttl(ms),
            )  # fmt: skip
            groups[row[:3]].append(row)
        for rows in groups.values():
            for start in range(0, len(rows), BATCH_ROWS):
                self._send(rows[start : start + BATCH_ROWS])
        with self._changed:
            self._changed.wait_for(lambda: not self._left)
        if self._failure is not None:
            raise self._failure
        self._clock.events += len(values)

    def _send(self, rows: list[tuple[Any, ...]]) -> None:
        if len(rows) == 1:
            statement = self._insert.bind(rows[0])
        else:
            statement = BatchStatement(BatchType.UNLOGGED)
            for row in rows:
                statement.add(self._insert, row)
        self._window.acquire()
        with self._changed:
            self._left += 1
        self._clock.batches += 1
        sent = time.perf_counter()
        self._session.execute_async(statement).add_callbacks(
            self._stored, self._failed, callback_args=(sent,), errback_args=(sent,)
        )

    def _stored(self, _: Any, sent: float) -> None:
        self._clock.latencies.append(time.perf_counter() - sent)
        self._window.release()
        with self._changed:
            self._left -= 1
            if not self._left:
                self._changed.notify()

    def _failed(self, error: BaseException, sent: float) -> None:
        self._failure = error
        self._stored(None, sent)


def main() -> None:
    job = Job.from_arguments()
    clock = Clock()
    sink = Sink(*job.session(), clock)
    consumer = Consumer(
        {
            "bootstrap.servers": job.bootstrap_servers, "group.id": job.group, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "fetch.queue.backoff.ms": 20,
        }
    )  # fmt: skip
    consumer.subscribe([job.topic])
    while clock.events < job.events:
        messages = consumer.consume(CHUNK, 0.1)
        if messages:
            clock.begin()
            sink.store([message.value() for message in messages])
            consumer.commit(asynchronous=True)
    clock.print_report()
    os._exit(0)


if __name__ == "__main__":
    main()
