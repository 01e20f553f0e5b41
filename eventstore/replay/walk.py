"""A range of the topic walked from its start to its end, each record proved against the store."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from eventstore.clock import now_ms
from eventstore.config import Settings
from eventstore.errors import RefusedError
from eventstore.events.cells import Batch, Cells, TableName, routing_key, table_of
from eventstore.events.erasure import Erasures
from eventstore.ingest.grouping import BatchLimit, cut
from eventstore.ingest.outlet import Direct
from eventstore.ingest.retry import RetryPolicy
from eventstore.replay.planning import book
from eventstore.replay.ranges import Ranges, aged_out, cut_off, refuse
from eventstore.replay.scope import Scope
from eventstore.replay.verify import Finding, Repair, Verifier
from eventstore.store.lookup import RowLookup
from eventstore.store.opening import open_writer
from eventstore.stream.chunk import Record
from eventstore.stream.erasures import ErasureTable
from eventstore.stream.offsets import TopicOffsets
from eventstore.stream.range_reader import Progress, RangeReader, unheard
from eventstore.tenancy import Registry, Tier

BATCH_RECORDS = 5_000
"""Checked together: the more, the more rows one read finds."""


@dataclass(frozen=True, slots=True)
class Walk:
    """What is to be checked."""

    settings: Settings
    ranges: Ranges
    meant: Registry
    """What the scope leaves of the registry."""
    scope: Scope

    async def verify(
        self,
        on_finding: Callable[[Finding], None],
        on_progress: Progress = unheard,
        *,
        fraction: float = 1.0,
        repairing: bool = False,
    ) -> Verifier:
        """Check every record of the ranges; gives the counts.

        Raises:
            RefusedError: the topic does not reach the end of the range any more.
            EventstoreError: Kafka or a cluster cannot or will not answer.
        """
        topic = self.settings.topics.events
        held = await asyncio.to_thread(TopicOffsets(self.settings.kafka, topic).held)
        refuse(cut_off(topic, self.ranges, held))
        async with AsyncExitStack() as stack:
            lookups = {}
            for tier in self.meant.tiers.values():
                lookup = await asyncio.to_thread(RowLookup, tier.cluster, self.settings.writer.request_timeout)
                stack.push_async_callback(asyncio.to_thread, lookup.close)
                lookups[tier.cluster.name] = lookup
            erasures = Erasures()
            table = ErasureTable(self.settings.kafka, self.settings.topics.erasures)
            hearing = await stack.enter_async_context(table.follow(erasures))
            repair = await _repair(self.settings, self.meant, stack) if repairing else None
            present = partial(book, self.settings, self.meant, self.scope, erasures)
            verifier = Verifier(lambda: present(now_ms()), lookups, on_finding, repair, fraction)
            with RangeReader(self.settings.kafka, topic) as reader:
                batches = _batches(reader, self.ranges, on_progress)
                while records := await asyncio.to_thread(next, batches, None):
                    await verifier.check(records)
                    if hearing.done():
                        hearing.result()
        return verifier

    def check_whole(self, found: Verifier) -> None:
        """Raises RefusedError if records aged out before they were read. Blocks.

        Compaction and transactions leave gaps that are nothing to see.
        """
        topic = self.settings.topics.events
        if found.counts["records"] < sum(each.records for each in self.ranges.values()):
            held = TopicOffsets(self.settings.kafka, topic).held()
            if gone := list(aged_out(topic, self.ranges, held, {})):
                raise RefusedError(f"{gone[0]}; not all of the range could be checked: verify a later one")


def _batches(reader: RangeReader, wanted: Ranges, on_progress: Progress) -> Iterator[list[Record]]:
    bounds = {partition: (each.start, each.end) for partition, each in wanted.items()}
    batch: list[Record] = []
    for records in reader.between(bounds, on_progress):
        batch += records
        if len(batch) >= BATCH_RECORDS:
            yield batch
            batch = []
    if batch:
        yield batch


async def _repair(settings: Settings, meant: Registry, stack: AsyncExitStack) -> Repair:
    writer = settings.writer
    limit = BatchLimit(writer.batch_rows, writer.batch_bytes)
    outlets = {}
    for tier in meant.tiers.values():
        opened = await open_writer(tier, writer)
        stack.push_async_callback(opened.close)
        outlets[tier.name] = Direct(opened, RetryPolicy(writer.backoff_base, writer.backoff_max, writer.retry_deadline))

    async def store(tier: Tier, rows: Sequence[Cells]) -> None:
        await outlets[tier.name].store(list(cut(by_partition(rows).values(), limit)))

    return store


def by_partition(rows: Sequence[Cells]) -> Mapping[tuple[TableName, bytes], Batch]:
    """The rows of each partition of each table."""
    batches: dict[tuple[TableName, bytes], Batch] = {}
    for cells in rows:
        batches.setdefault((table_of(cells), routing_key(cells)), []).append(cells)
    return batches
