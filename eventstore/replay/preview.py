"""What a replay would do, told from a sample of its range: size, time, who is written, what expires on arrival."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from eventstore.ingest.admission import Admitted, AdmittedPosts, Erased, Expired
from eventstore.replay.judge import Judge, Skipped
from eventstore.replay.ranges import Range, Ranges
from eventstore.stream.chunk import Record
from eventstore.stream.range_reader import RangeReader

SAMPLE: Final = 600
"""Records looked at, about, at the beginning, in the middle and at the end of each partition's range."""
POINTS: Final = 3


class Span(msgspec.Struct, frozen=True):
    """When the first and the last record of a partition's range were appended, in ms since the epoch; None: empty."""

    first_ms: int | None = None
    last_ms: int | None = None


@dataclass(slots=True)
class Sample:
    """Some records of the range and what the replay would do with them."""

    records: int = 0
    size: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    """`stored`, `expired`, `erased`, `skipped`, or the reason of a rejection."""
    clusters: Counter[str] = field(default_factory=Counter)
    tenants: Counter[str] = field(default_factory=Counter)
    spans: dict[int, Span] = field(default_factory=dict)

    def add(self, record: Record, judge: Judge) -> None:
        self.records += 1
        self.size += len(record.key() or b"") + len(record.value() or b"")
        verdict = judge(record)
        if isinstance(verdict, Admitted | AdmittedPosts):
            self.clusters[verdict.tier.cluster.name] += 1
            self.tenants[verdict.tenant] += 1
        self.verdicts[name_of(verdict)] += 1

    def share(self, verdict: str) -> float:
        return self.verdicts[verdict] / self.records if self.records else 0.0

    def bytes_of(self, records: int) -> int:
        """About how many bytes so many records have, key and value."""
        return records * self.size // self.records if self.records else 0


def name_of(verdict: object) -> str:
    match verdict:
        case Admitted() | AdmittedPosts():
            return "stored"
        case Expired():
            return "expired"
        case Erased():
            return "erased"
        case Skipped():
            return "skipped"
        case _:
            return str(verdict.reason.value)  # type: ignore[attr-defined]  # all that is left is Rejected


def points(each: Range, most: int) -> list[tuple[int, int]]:
    """Beginning, middle and end of a range, `most` offsets each, without overlap; all of it if it is short."""
    if each.records <= POINTS * most:
        return [(each.start, each.end)]
    middle = each.start + (each.records - most) // 2
    return [(each.start, each.start + most), (middle, middle + most), (each.end - most, each.end)]


def take_sample(reader: RangeReader, wanted: Ranges, judge: Judge) -> Sample:
    """Read and judge some records of each partition; raises as `RangeReader` does."""
    busy = {partition: each for partition, each in wanted.items() if each.records}
    sample = Sample()
    if not busy:
        return sample
    most = max(1, SAMPLE // (POINTS * len(busy)))
    looks = {partition: points(each, most) for partition, each in busy.items()}
    for turn in range(POINTS):
        bounds = {partition: places[turn] for partition, places in looks.items() if turn < len(places)}
        for record in _records(reader, bounds):
            sample.add(record, judge)
            sample.spans[_partition(record)] = _grown(sample.spans.get(_partition(record), Span()), record)
    return sample


def first_times(reader: RangeReader, offsets: dict[int, int]) -> dict[int, int]:
    """When the records at these offsets were appended, in ms since the epoch."""
    bounds = {partition: (offset, offset + 1) for partition, offset in offsets.items()}
    return {_partition(record): record.timestamp()[1] for record in _records(reader, bounds)}


def _records(reader: RangeReader, bounds: dict[int, tuple[int, int]]) -> Iterable[Record]:
    return (record for records in reader.between(bounds) for record in records)


def _partition(record: Record) -> int:
    partition: int = record.partition()
    return partition


def _grown(span: Span, record: Record) -> Span:
    ms = record.timestamp()[1]
    return Span(
        ms if span.first_ms is None else min(span.first_ms, ms), ms if span.last_ms is None else max(span.last_ms, ms)
    )


def verdicts_told(verdicts: Counter[str]) -> Iterator[str]:
    """Most frequent first: `stored 97 %`."""
    total = verdicts.total()
    return (f"{name} {count / total:.0%}" for name, count in verdicts.most_common())
