"""One chunk's whole journey. When `run` returns, nothing of the chunk can be lost any more."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from eventstore import metrics
from eventstore.events import Coordinates, Rejected
from eventstore.events.cells import Batch
from eventstore.ingest.express import Express
from eventstore.ingest.grouping import BatchLimit, cut
from eventstore.ingest.retry import RetryPolicy, write_until_stored
from eventstore.store.writer import EventWriter
from eventstore.stream.chunk import Chunk, Record
from eventstore.stream.dead_letters import Reject
from eventstore.tenancy import Registry


class DeadLetters(Protocol):
    async def send(self, rejects: Sequence[Reject]) -> None:
        """Returns when Kafka has confirmed every one."""
        ...


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
    express: Express
    limit: BatchLimit = field(default_factory=BatchLimit)
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    async def run(self, chunk: Chunk) -> None:
        """Store, expire, leave out (erased) or dead-letter every record of the chunk.

        Raises:
            StoreError: a cluster refuses a write, or went on failing beyond the retry policy's deadline.
            KafkaError: a reject could not be written to the dead-letter topic.
        """
        found = self.express.sort(chunk, self.registry(), self.clock())
        try:
            async with asyncio.TaskGroup() as steps:
                for cluster, batches in found.batches.items():
                    steps.create_task(self.store(self.writer(cluster), list(cut(batches, self.limit))))
                if found.rejects:
                    steps.create_task(self.dead_letter([_reject(*each) for each in found.rejects]))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures  # one is enough to end the worker, and says more than a group
        for tier, count in found.expired.items():
            metrics.EXPIRED.labels(tier).inc(count)
        metrics.ERASED.inc(found.erased)
        metrics.CONSUMED.inc(len(chunk))

    async def store(self, writer: EventWriter, batches: Sequence[Batch]) -> None:
        await write_until_stored(writer, batches, self.retry, monotonic)
        metrics.STORED.labels(writer.cluster).inc(sum(map(len, batches)))

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
