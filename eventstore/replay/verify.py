"""Proof that the store holds what a range of the topic says it must: every record, by the rule book, read back."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol
from uuid import UUID
from zlib import crc32

import msgspec

from eventstore.events import Coordinates
from eventstore.events.row import Row
from eventstore.ingest.admission import MICROS, Admitted, ClockRules, Erased
from eventstore.replay.judge import ScopedBook
from eventstore.replay.preview import name_of
from eventstore.store.lookup import PartitionKey, RowKey, StoredRow
from eventstore.stream.chunk import Record
from eventstore.tenancy import Tier

SLACK_SECONDS: Final = 120
"""A row that expires so soon may be gone when it is looked for, and none lives to the second: clocks differ."""


class Found(StrEnum):
    IDENTICAL = "identical"
    SUPERSEDED = "superseded"
    """By a later event of the same millisecond and identity, which a replay must not overwrite."""
    EXPIRED = "expired"
    ERASED = "erased"
    """Not there, as it must be."""
    MISSING = "missing"
    DIFFERENT = "different"
    LIFETIME = "lifetime"
    """It never expires, or much sooner or later than its retention says."""
    OVERWRITTEN = "overwritten"
    """By something that was written later than any event of its time can have been: storing it again does not help."""
    RESURRECTED = "resurrected"
    """There, although its user's past was erased."""


WRONG: Final = (Found.MISSING, Found.DIFFERENT, Found.LIFETIME, Found.OVERWRITTEN, Found.RESURRECTED)
MENDABLE: Final = (Found.MISSING, Found.DIFFERENT, Found.LIFETIME)
"""By storing the row again."""


class Expected(NamedTuple):
    """A row that a record must have made, or must not have left."""

    record: Record
    row: Row
    tier: Tier
    erased: bool = False

    @property
    def source(self) -> Coordinates:
        return source_of(self.record)

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


def source_of(record: Record) -> Coordinates:
    return Coordinates(record.topic(), record.partition(), record.offset())


def sampled(source: Coordinates, fraction: float) -> bool:
    """Whether a record is of the sample: always the same ones, whoever asks."""
    return crc32(str(source).encode()) < fraction * 2**32


def compare(expected: Expected, stored: StoredRow | None, now_micros: int, rules: ClockRules) -> Found:
    row = expected.row
    if expected.erased:
        return Found.ERASED if stored is None else Found.RESURRECTED
    left = row.write_micros // MICROS + expected.tier.retention_seconds - now_micros // MICROS
    if stored is None:
        return Found.EXPIRED if left <= SLACK_SECONDS else Found.MISSING
    newer = stored.write_micros > row.write_micros
    if newer and stored.write_micros // 1_000 != row.ts_ms:
        return Found.OVERWRITTEN
    if not newer and stored[:4] != (row.event, row.properties, row.context, row.write_micros):
        return Found.DIFFERENT
    if not lives_rightly(stored.ttl_seconds, left, expected.tier.retention_seconds, rules):
        return Found.LIFETIME
    return Found.SUPERSEDED if newer else Found.IDENTICAL


def lives_rightly(ttl_seconds: int | None, left: int, retention_seconds: int, rules: ClockRules) -> bool:
    """Whether a row expires when it may.

    Args:
        ttl_seconds: until the store expires it; None: never.
        left: seconds until its event is older than its retention.
        retention_seconds: of its tier.
        rules: a row that was written fresh lives for a whole retention from then on, be it up to `late_after` after its event
            or, by a clock that is ahead, up to `max_future` before it.
    """
    if ttl_seconds is None:
        return False
    latest = min(left + rules.late_after_seconds, retention_seconds)
    return left - rules.max_future_seconds - SLACK_SECONDS <= ttl_seconds <= latest + SLACK_SECONDS


@dataclass(slots=True)
class Verifier:
    """Checks records batch by batch. Its counts are true at any time."""

    book: Callable[[], ScopedBook]
    """As it stands when it is asked for: users are erased and rows expire while others are looked for."""
    lookups: Mapping[str, Lookup]
    """By cluster."""
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
        chosen = [record for record in records if sampled(source_of(record), self.fraction)]
        if len(chosen) < len(records):
            self.counts["not sampled"] += len(records) - len(chosen)
        suspects = await self._look(chosen, self.counts)
        # wrong is what is wrong twice: meanwhile a write may have arrived, or a user may have been erased
        wrong = await self._look([each.record for each, _ in suspects], self.counts)
        left = await self._left(wrong)
        for each, what in wrong:
            repaired = each.source not in left
            self.counts[what.value] += 1
            self.counts["repaired"] += repaired
            self.on_finding(_finding(each, what, repaired=repaired))

    async def _left(self, wrong: Sequence[tuple[Expected, Found]]) -> set[Coordinates]:
        """Those that are wrong still when what can be repaired has been."""
        if self.repair is not None and (mendable := [each for each, what in wrong if what in MENDABLE]):
            await _store(self.repair, mendable)
            wrong = await self._look([each.record for each, _ in wrong], Counter())
        return {each.source for each, _ in wrong}

    async def _look(self, records: Sequence[Record], counts: Counter[str]) -> list[tuple[Expected, Found]]:
        """Those whose rows are wrong; counts the others."""
        book = self.book()
        by_cluster: dict[str, list[Expected]] = defaultdict(list)
        for each in _expected(records, book, counts):
            by_cluster[each.tier.cluster.name].append(each)
        wrong: list[tuple[Expected, Found]] = []
        found = await asyncio.gather(*(self._read(cluster, some) for cluster, some in by_cluster.items()))
        admission = book.admission
        for some, stored in zip(by_cluster.values(), found, strict=True):
            outcomes = [
                (each, compare(each, stored.get(each.key), admission.now_micros, admission.rules)) for each in some
            ]
            # of several records with one identity any may have won
            settled = {each.key for each, what in outcomes if what is Found.IDENTICAL}
            for each, what in outcomes:
                seen = Found.SUPERSEDED if what is Found.DIFFERENT and each.key in settled else what
                if seen in WRONG:
                    wrong.append((each, seen))
                else:
                    counts[seen.value] += 1
        return wrong

    async def _read(self, cluster: str, expected: Sequence[Expected]) -> Mapping[RowKey, StoredRow]:
        return await asyncio.to_thread(self.lookups[cluster].find, [each.key for each in expected])


def _expected(records: Sequence[Record], book: ScopedBook, counts: Counter[str]) -> Iterator[Expected]:
    """The rows to look for; counts the records that have none."""
    for record in records:
        verdict = book(record)
        erased = isinstance(verdict, Erased)
        admitted = book.but_for_erasures(record) if erased else verdict
        if isinstance(admitted, Admitted):
            yield Expected(record, *admitted, erased)
        else:
            counts[name_of(verdict)] += 1


async def _store(repair: Repair, wrong: Sequence[Expected]) -> None:
    by_tier: dict[str, list[Expected]] = defaultdict(list)
    for each in wrong:
        by_tier[each.tier.name].append(each)
    for some in by_tier.values():
        await repair(some[0].tier, [each.row for each in some])


def _finding(expected: Expected, what: Found, *, repaired: bool) -> Finding:
    row = expected.row
    return Finding(
        what, str(expected.source), expected.tier.cluster.name, row.tenant, row.uid, str(UUID(bytes=row.eid)), row.ts_ms,
        repaired,
    )  # fmt: skip
