"""Proof that the store holds what a range of the topic says it must: every record, by the rule book, read back."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol
from uuid import UUID
from zlib import crc32

import msgspec

from eventstore.events import Coordinates
from eventstore.events.row import Row
from eventstore.ingest.admission import Admitted
from eventstore.replay.judge import Judge
from eventstore.replay.preview import name_of
from eventstore.store.lookup import PartitionKey, RowKey, StoredRow
from eventstore.stream.chunk import Record
from eventstore.tenancy import Tier

EXPIRY_SLACK_MICROS: Final = 120 * 1_000_000
"""A row that expires so soon may be gone when it is looked for: clocks differ, and a walk takes its time."""


class Found(StrEnum):
    IDENTICAL = "identical"
    SUPERSEDED = "superseded"
    """By a newer write of the same row, which a replay must not overwrite."""
    EXPIRED = "expired"
    MISSING = "missing"
    DIFFERENT = "different"


WRONG: Final = (Found.MISSING, Found.DIFFERENT)


class Expected(NamedTuple):
    """A row that a record must have made, and where."""

    source: Coordinates
    row: Row
    tier: Tier

    @property
    def key(self) -> RowKey:
        row = self.row
        return RowKey(PartitionKey(row.uid, row.tenant, row.bid), row.ts_ms, row.eid)


class Finding(msgspec.Struct, frozen=True):
    """A record whose row is not as it must be."""

    what: Found
    source: str
    """Topic, partition and offset."""
    cluster: str
    tenant: str
    uid: str
    eid: str
    timestamp: int
    """Event time in ms since the epoch."""
    repaired: bool = False


class Lookup(Protocol):
    """One cluster's rows (`RowLookup` reads them)."""

    def find(self, keys: Iterable[RowKey]) -> Mapping[RowKey, StoredRow]: ...


Repair = Callable[[Tier, Sequence[Row]], Awaitable[None]]
"""Stores rows of a tier; returns when they are acknowledged."""


def sampled(source: Coordinates, fraction: float) -> bool:
    """Whether a record is of the sample: always the same ones, whoever asks."""
    return crc32(str(source).encode()) < fraction * 2**32


def compare(expected: Expected, stored: StoredRow | None, now_micros: int) -> Found:
    row = expected.row
    if stored is None:
        left = row.write_micros + expected.tier.retention_seconds * 1_000_000 - now_micros
        return Found.EXPIRED if left <= EXPIRY_SLACK_MICROS else Found.MISSING
    if stored.write_micros > row.write_micros:
        return Found.SUPERSEDED
    same = stored == StoredRow(row.event, row.properties, row.context, row.write_micros)
    return Found.IDENTICAL if same else Found.DIFFERENT


@dataclass(slots=True)
class Verifier:
    """Checks records batch by batch. Its counts are true at any time."""

    judge: Judge
    lookups: Mapping[str, Lookup]
    """By cluster."""
    clock: Callable[[], int]
    """Microseconds since the epoch."""
    on_finding: Callable[[Finding], None]
    repair: Repair | None = None
    fraction: float = 1.0
    """Share of the records that is looked at."""
    counts: Counter[str] = field(default_factory=Counter)
    """By `Found`, by verdict for those that have no row; `records` in all, `repaired` of the wrong ones."""

    @property
    def wrong(self) -> int:
        return sum(self.counts[what.value] for what in WRONG) - self.counts["repaired"]

    async def check(self, records: Sequence[Record]) -> None:
        """Look for the rows of these records.

        Raises:
            StoreError: a cluster cannot or will not answer.
        """
        self.counts["records"] += len(records)
        wrong = await self._look(self._expected(records), self.counts)
        if self.repair is not None and wrong:
            await _store(self.repair, wrong)
            left = {each.source for each, _ in await self._look([each for each, _ in wrong], Counter())}
        else:
            left = {each.source for each, _ in wrong}
        for each, what in wrong:
            repaired = each.source not in left
            self.counts["repaired"] += repaired
            self.on_finding(_finding(each, what, repaired=repaired))

    def _expected(self, records: Sequence[Record]) -> list[Expected]:
        expected = []
        for record in records:
            source = Coordinates(record.topic(), record.partition(), record.offset())
            if self.fraction < 1 and not sampled(source, self.fraction):
                self.counts["not sampled"] += 1
                continue
            verdict = self.judge(record)
            if isinstance(verdict, Admitted):
                expected.append(Expected(source, *verdict))
            else:
                self.counts[name_of(verdict)] += 1
        return expected

    async def _look(self, expected: Sequence[Expected], counts: Counter[str]) -> list[tuple[Expected, Found]]:
        """Those whose rows are wrong."""
        by_cluster: dict[str, list[Expected]] = defaultdict(list)
        for each in expected:
            by_cluster[each.tier.cluster.name].append(each)
        wrong: list[tuple[Expected, Found]] = []
        found = await asyncio.gather(*(self._read(cluster, some) for cluster, some in by_cluster.items()))
        for some, stored in zip(by_cluster.values(), found, strict=True):
            outcomes = [(each, compare(each, stored.get(each.key), self.clock())) for each in some]
            # of several records with one identity any may have won
            settled = {each.key for each, what in outcomes if what is Found.IDENTICAL}
            for each, what in outcomes:
                seen = Found.SUPERSEDED if what is Found.DIFFERENT and each.key in settled else what
                counts[seen.value] += 1
                if seen in WRONG:
                    wrong.append((each, seen))
        return wrong

    async def _read(self, cluster: str, expected: Sequence[Expected]) -> Mapping[RowKey, StoredRow]:
        return await asyncio.to_thread(self.lookups[cluster].find, [each.key for each in expected])


async def _store(repair: Repair, wrong: Sequence[tuple[Expected, Found]]) -> None:
    by_tier: dict[str, list[Expected]] = defaultdict(list)
    for each, _ in wrong:
        by_tier[each.tier.name].append(each)
    for some in by_tier.values():
        await repair(some[0].tier, [each.row for each in some])


def _finding(expected: Expected, what: Found, *, repaired: bool) -> Finding:
    row = expected.row
    return Finding(
        what, str(expected.source), expected.tier.cluster.name, row.tenant, row.uid, str(UUID(bytes=row.eid)), row.ts_ms,
        repaired,
    )  # fmt: skip
