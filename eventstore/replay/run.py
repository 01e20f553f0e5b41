"""Storing the records of a range: the live pipeline, for the records of a scope, at most so many a second."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, Protocol

import msgspec

from eventstore.ingest.meter import Meter
from eventstore.ingest.pipeline import Pipeline
from eventstore.ingest.rate import RateLimit
from eventstore.replay.scope import Selection
from eventstore.stream.chunk import Chunk
from eventstore.stream.dead_letters import Reject

CONCURRENT_CHUNKS: Final = 8


class Source(Protocol):
    """Hands out chunks (`ChunkConsumer` does)."""

    async def next(self) -> Chunk: ...


async def work_through(source: Source, work: Callable[[Chunk], Awaitable[None]]) -> None:
    """Work on what comes, some chunks at a time, until cancelled; a chunk is finished when its work is done.

    Raises:
        Exception: what `work` raised first; other chunks are given up, and nothing unfinished is committed.
    """
    slots = asyncio.Semaphore(CONCURRENT_CHUNKS)

    async def one(chunk: Chunk) -> None:
        try:
            await work(chunk)
            chunk.finish()
        finally:
            slots.release()

    try:
        async with asyncio.TaskGroup() as running:
            while True:
                await slots.acquire()
                chunk = await source.next()
                if chunk.claim():
                    running.create_task(one(chunk))
                else:
                    slots.release()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures  # one is enough to end the process, and says more than a group


class CountedRejects:
    """In place of the dead-letter topic, which has these records since they first came: they are only counted."""

    def __init__(self) -> None:
        self.reasons: Counter[str] = Counter()

    async def send(self, rejects: Sequence[Reject]) -> None:
        self.reasons.update(reject.rejected.reason.value for reject in rejects)


class Account(msgspec.Struct):
    """What became of the records that one process has done, or all of them together."""

    records: int = 0
    skipped: int = 0
    """Outside the scope."""
    rejected: dict[str, int] = {}
    """By reason."""
    cpu_seconds: float = 0.0

    def __add__(self, other: "Account") -> "Account":
        return Account(
            self.records + other.records,
            self.skipped + other.skipped,
            dict(Counter(self.rejected) + Counter(other.rejected)),
            self.cpu_seconds + other.cpu_seconds,
        )


@dataclass(slots=True)
class Runner:
    """Does the chunks of a replay."""

    pipeline: Pipeline
    rejects: CountedRejects
    """The pipeline's dead letters."""
    selection: Selection
    limit: RateLimit | None = None
    skipped: int = 0
    meter: Meter = field(default_factory=Meter)

    async def run(self, chunk: Chunk) -> None:
        """Store what of the chunk is meant; raises what the pipeline raises."""
        self.meter.begin()
        meant = self._meant(chunk)
        if meant is not None:
            if self.limit is not None:
                await asyncio.sleep(self.limit.delay(len(meant), monotonic()))
            await self.pipeline.run(meant)
        self.meter.end(len(chunk))

    def account(self) -> Account:
        figures = self.meter.figures()
        cpu_seconds = figures.get("cpu_us_per_record", 0.0) * self.meter.records / 1e6
        return Account(self.meter.records, self.skipped, dict(self.rejects.reasons), round(cpu_seconds, 3))

    def _meant(self, chunk: Chunk) -> Chunk | None:
        """The chunk without the records outside the scope; None if there are no others."""
        if self.selection.everything:
            return chunk
        picks = self.selection.picks
        records = [record for record, key, value in chunk.records() if picks(key, value)]
        self.skipped += len(chunk) - len(records)
        return Chunk(chunk.topic, chunk.partition, records, chunk.size, chunk.member) if records else None
