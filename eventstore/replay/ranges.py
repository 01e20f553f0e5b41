"""Offsets from-to of each partition, and the reasons why a range must not be replayed as it was asked for. Pure.

Offsets are half-open: a range ends before `end`. Times are Kafka's, milliseconds since the epoch.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from eventstore.errors import RefusedError
from eventstore.events.moment import rfc3339
from eventstore.stream.offsets import Held

SHOWN: Final = 3
"""Most partitions of an error message."""


class Range(msgspec.Struct, frozen=True):
    start: int
    end: int

    @property
    def records(self) -> int:
        """At most: compaction and transactions leave gaps."""
        return self.end - self.start


Ranges = dict[int, Range]
"""By partition; every partition of the topic has one, be it empty."""


def ranges(starts: Mapping[int, int], ends: Mapping[int, int], held: Mapping[int, Held]) -> Ranges:
    """A range for every partition. One without a start or an end, or with an end before its start, is empty."""
    found = {}
    for partition, there in sorted(held.items()):
        end = min(ends.get(partition, there.first), there.end)
        start = starts.get(partition, end)
        found[partition] = Range(start, max(start, end) if partition in ends else start)
    return found


def clipped(wanted: Ranges, held: Mapping[int, Held]) -> Ranges:
    """What of the ranges the topic still holds."""
    return {
        partition: Range(start := max(each.start, held[partition].first), max(start, each.end))
        for partition, each in wanted.items()
    }


def overlap(one: Ranges, other: Ranges) -> list[int]:
    """Partitions of which both cover some offset."""
    return [
        partition
        for partition, each in one.items()
        if (there := other.get(partition)) is not None and max(each.start, there.start) < min(each.end, there.end)
    ]


def unknown_partitions(named: Mapping[int, int], held: Mapping[int, Held], what: str) -> Iterator[str]:
    if strangers := sorted(named.keys() - held.keys()):
        yield (
            f"{what}: expected partitions 0 to {len(held) - 1}, got {', '.join(map(str, strangers))}; "
            "see `eventstore topics list`"
        )


def beyond_end(topic: str, starts: Mapping[int, int], held: Mapping[int, Held]) -> Iterator[str]:
    """Starts that the topic has not reached: mostly offsets of another topic, or of one that was created anew."""
    for partition, there in held.items():
        if starts.get(partition, 0) > there.end:
            yield (
                f"{topic}/{partition}: expected a start of at most {there.end}, where the topic ends, got "
                f"{starts[partition]}; are these offsets of this topic?"
            )


def cut_off(topic: str, wanted: Ranges, held: Mapping[int, Held]) -> Iterator[str]:
    """Ranges whose end the topic does not reach, though it did: it was created anew, or brokers have lost records."""
    for partition, each in wanted.items():
        end = held[partition].end if partition in held else 0
        if each.records and each.end > end:
            yield (
                f"{topic}/{partition}: expected records up to offset {each.end}, found an end at {end}: the topic was created "
                "anew, or its brokers have lost records; name a range of what it holds now"
            )


def aged_out(topic: str, wanted: Ranges, held: Mapping[int, Held], first_ms: Mapping[int, int]) -> Iterator[str]:
    """Ranges whose beginning the topic has let go of."""
    for partition, each in wanted.items():
        first = held[partition].first
        if each.records and each.start < first:
            gone = min(first, each.end) - each.start
            yield (
                f"{topic}/{partition}: expected to begin at offset {each.start}, but the first held is {first}"
                f"{_of(first_ms.get(partition))}: {gone} records are gone"
            )


def behind_gaps(wanted: Ranges, held: Mapping[int, Held]) -> dict[int, int]:
    """Where to go on in partitions that have let go of the beginning of their range."""
    return {
        partition: min(held[partition].first, each.end)
        for partition, each in wanted.items()
        if each.records and each.start < held[partition].first
    }


def aged_out_since(
    topic: str, since_ms: int, held: Mapping[int, Held], first_ms: Mapping[int, int], sure_from_ms: float
) -> Iterator[str]:
    """Partitions that may have held records of `since_ms` and do not any more.

    Args:
        topic: whose they are.
        since_ms: where the range is to begin.
        held: what each partition holds.
        first_ms: the time of each partition's first held record, if it holds any.
        sure_from_ms: what is younger cannot have aged out (see `sure_from`).
    """
    if since_ms >= sure_from_ms:
        return
    for partition, there in held.items():
        if there.first > 0 and first_ms.get(partition, since_ms + 1) > since_ms:
            yield (
                f"{topic}/{partition}: expected records from {rfc3339(since_ms)} on, but the first held is offset "
                f"{there.first}{_of(first_ms.get(partition))}"
            )


def sure_from(config: Mapping[str, str], now_ms: int) -> float:
    """From which moment on a topic of this configuration cannot have let records age out, in ms since the epoch."""
    kept_ms, kept_bytes = int(config.get("retention.ms", -1)), int(config.get("retention.bytes", -1))
    if kept_bytes >= 0:
        return float("inf")
    return now_ms - kept_ms if kept_ms >= 0 else float("-inf")


def nothing_in(topic: str, wanted: Ranges) -> Iterator[str]:
    if not any(each.records for each in wanted.values()):
        shown = ", ".join(f"{partition}: {each.start}" for partition, each in list(wanted.items())[:SHOWN])
        yield (
            f"{topic}: expected records in the range, found none (starts {shown}...); by default it ends where the live "
            "group has committed: name an earlier start or, with --to-latest, a later end"
        )


def refuse(problems: Iterator[str] | list[str], mend: str = "") -> None:
    """Raises RefusedError if there are any, in one line."""
    if told := list(problems):
        more = f" (and {len(told) - SHOWN} more)" if len(told) > SHOWN else ""
        raise RefusedError(f"{'; '.join(told[:SHOWN])}{more}{mend and f'; {mend}'}; nothing was written")


def _of(ms: int | None) -> str:
    return "" if ms is None else f" of {rfc3339(ms)}"
