"""One chunk's whole journey. When `run` returns, nothing of the chunk can be lost any more."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Protocol

from eventstore import metrics
from eventstore.events import Coordinates, Rejected
from eventstore.events.row import Row
from eventstore.ingest.admission import Admission, Admitted, ClockRules
from eventstore.ingest.grouping import BatchLimit, group
from eventstore.ingest.retry import RetryPolicy, write_until_stored
from eventstore.store.writer import EventWriter
from eventstore.stream.chunk import Chunk, Record
from eventstore.stream.dead_letters import Reject
from eventstore.stream.headers import origin
from eventstore.tenancy import Registry


class DeadLetters(Protocol):
    async def send(self, rejects: Sequence[Reject]) -> None:
        """Returns when Kafka has confirmed every one."""
        ...


@dataclass(slots=True)
class Sorted:
    """A chunk's records by verdict."""

    rows: defaultdict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    """By cluster."""
    rejects: list[Reject] = field(default_factory=list)
    expired: Counter[str] = field(default_factory=Counter)
    """How many, by tier."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What turns chunks into acknowledged rows."""

    registry: Callable[[], Registry]
    """The registry in force; asked once a chunk, so that an edit takes effect at the next one."""
    writer: Callable[[str], EventWriter]
    """The writer of a cluster."""
    dead_letters: DeadLetters
    clock: Callable[[], int]
    """Microseconds since the epoch."""
    rules: ClockRules = field(default_factory=ClockRules)
    limit: BatchLimit = field(default_factory=BatchLimit)
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    async def run(self, chunk: Chunk) -> None:
        """Store, expire or dead-letter every record of the chunk.

        Raises:
            StoreError: a cluster refuses a write, or went on failing beyond the retry policy's deadline.
            KafkaError: a reject could not be written to the dead-letter topic.
        """
        sorted_ = self.sort(chunk)
        try:
            async with asyncio.TaskGroup() as steps:
                for cluster, rows in sorted_.rows.items():
                    steps.create_task(self.store(cluster, rows))
                if sorted_.rejects:
                    steps.create_task(self.dead_letter(sorted_.rejects))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures  # one is enough to end the worker, and says more than a group
        for tier, count in sorted_.expired.items():
            metrics.EXPIRED.labels(tier).inc(count)
        metrics.CONSUMED.inc(len(chunk))

    def sort(self, chunk: Chunk) -> Sorted:
        """Decode, validate, transform and route each record; one bad record never harms its neighbours."""
        admission = Admission(self.registry(), self.clock(), self.rules)
        found = Sorted()
        for record in chunk.messages:
            verdict = admission.verdict(record.value(), record.key(), partial(_origin, record))
            if isinstance(verdict, Admitted):
                found.rows[verdict.tier.cluster.name].append(verdict.row)
            elif isinstance(verdict, Rejected):
                found.rejects.append(_reject(verdict, record))
            else:
                found.expired[verdict.tier.name] += 1
        return found

    async def store(self, cluster: str, rows: Sequence[Row]) -> None:
        batches = group(rows, self.limit)
        await write_until_stored(self.writer(cluster), batches, self.retry, monotonic)
        metrics.STORED.labels(cluster).inc(len(rows))

    async def dead_letter(self, rejects: Sequence[Reject]) -> None:
        await self.dead_letters.send(rejects)
        for reason, count in Counter(reject.rejected.reason for reject in rejects).items():
            metrics.REJECTED.labels(reason.value).inc(count)


def _reject(rejected: Rejected, record: Record) -> Reject:
    return Reject(
        rejected=rejected,
        coordinates=Coordinates(record.topic(), record.partition(), record.offset()),
        key=record.key(),
        value=record.value(),
        headers=record.headers() or [],
        timestamp_ms=record.timestamp()[1],
    )


def _origin(record: Record) -> Coordinates:
    """Where the record first stood: a replayed dead letter carries it, so that its identity does not change."""
    return origin(record.headers()) or Coordinates(record.topic(), record.partition(), record.offset())
