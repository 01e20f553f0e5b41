"""Proof that the store holds what a range of the topic says it must: every record, by the rule book, read back."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID
from zlib import crc32

import msgspec

from eventstore.events import Coordinates
from eventstore.events.cells import Cells
from eventstore.ingest.admission import Admitted, AdmittedPosts, Erased
from eventstore.replay.expected import MENDABLE, WRONG, Expected, ExpectedPosts, ExpectedRow, Found, Stored, source_of
from eventstore.replay.judge import ScopedBook
from eventstore.replay.preview import name_of
from eventstore.store.lookup import PostKey, RowKey, StoredPost, StoredRow
from eventstore.stream.chunk import Record
from eventstore.tenancy import Tier


class Finding(msgspec.Struct, frozen=True):
    """A record whose row, or one of whose rows, is not as it must be."""

    what: Found
    source: str
    """Topic, partition and offset."""
    cluster: str
    tenant: str
    uid: str
    eid: str
    """Of an event; empty for impressions."""
    timestamp: int
    """Event time in ms since the epoch; of impressions, when the first of the record was seen."""
    repaired: bool = False


class Lookup(Protocol):
    """One cluster's rows (`RowLookup` reads them)."""

    def find(self, keys: Iterable[RowKey]) -> Mapping[RowKey, StoredRow]: ...

    def find_posts(self, keys: Iterable[PostKey]) -> Mapping[PostKey, StoredPost]: ...


Repair = Callable[[Tier, Sequence[Cells]], Awaitable[None]]
"""Stores rows of a tier; returns when they are acknowledged."""


def sampled(source: Coordinates, fraction: float) -> bool:
    """Whether a record is of the sample: always the same ones, whoever asks."""
    return crc32(str(source).encode()) < fraction * 2**32


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
            repaired = source_of(each.record) not in left
            self.counts[what.value] += 1
            self.counts["repaired"] += repaired
            self.on_finding(_finding(each, what, repaired=repaired))

    async def _left(self, wrong: Sequence[tuple[Expected, Found]]) -> set[Coordinates]:
        """Those that are wrong still when what can be repaired has been."""
        if self.repair is not None and (mendable := [each for each, what in wrong if what in MENDABLE]):
            await _store(self.repair, mendable)
            wrong = await self._look([each.record for each, _ in wrong], Counter())
        return {source_of(each.record) for each, _ in wrong}

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
            outcomes = [(each, each.found(stored, admission.now_micros, admission.rules)) for each in some]
            # of several records with one identity any may have won
            settled = {each.identity for each, what in outcomes if what is Found.IDENTICAL}
            for each, what in outcomes:
                seen = Found.SUPERSEDED if what is Found.DIFFERENT and each.identity in settled else what
                if seen in WRONG:
                    wrong.append((each, seen))
                else:
                    counts[seen.value] += 1
        return wrong

    async def _read(self, cluster: str, expected: Sequence[Expected]) -> Stored:
        lookup = self.lookups[cluster]
        rows = [each.key for each in expected if isinstance(each, ExpectedRow)]
        posts = [key for each in expected if isinstance(each, ExpectedPosts) for key in each.keys]
        return Stored(await asyncio.to_thread(lookup.find, rows), await asyncio.to_thread(lookup.find_posts, posts))


def _expected(records: Sequence[Record], book: ScopedBook, counts: Counter[str]) -> Iterator[Expected]:
    """The rows to look for; counts the records that have none."""
    for record in records:
        verdict = book(record)
        erased = isinstance(verdict, Erased)
        admitted = book.but_for_erasures(record) if erased else verdict
        if isinstance(admitted, Admitted):
            yield ExpectedRow(record, *admitted, erased)
        elif isinstance(admitted, AdmittedPosts):
            yield ExpectedPosts(record, *admitted, erased)
        else:
            counts[name_of(verdict)] += 1


async def _store(repair: Repair, wrong: Sequence[Expected]) -> None:
    by_tier: dict[str, list[Expected]] = defaultdict(list)
    for each in wrong:
        by_tier[each.tier.name].append(each)
    for some in by_tier.values():
        await repair(some[0].tier, [cells for each in some for cells in each.cells])


def _finding(expected: Expected, what: Found, *, repaired: bool) -> Finding:
    source, cluster = str(source_of(expected.record)), expected.tier.cluster.name
    if isinstance(expected, ExpectedPosts):
        seen = min(expected.impressions, key=lambda impression: impression.seen_micros)
        return Finding(what, source, cluster, seen.tenant, seen.uid, "", seen.seen_micros // 1_000, repaired)
    row = expected.row
    return Finding(what, source, cluster, row.tenant, row.uid, str(UUID(bytes=row.eid)), row.ts_ms, repaired)
