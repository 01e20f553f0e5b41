"""Versioned time buckets: how one user's events are cut into bounded partitions.

A `bid` (bucket id) carries its strategy: high 8 bits the strategy's version, low 24 bits the bucket's number since the
epoch. Writers choose the strategy by event time, so a replay lands on the same rows; readers enumerate every strategy
that overlaps their range. A tier's strategies are an append-only list: refining the width never rewrites data.
All times are milliseconds since the epoch; ranges are half-open, `[start, end)`.
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

NUMBER_BITS: Final = 24
MAX_NUMBER: Final = (1 << NUMBER_BITS) - 1
MAX_STRATEGIES: Final = 128
"""Versions 0 to 127 keep the `bid`, a CQL int, positive."""
HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class BucketStrategy:
    effective_from_ms: int
    """First event time it governs."""
    width_ms: int
    """Event time that one bucket spans."""

    @property
    def begins(self) -> str:
        return _iso(self.effective_from_ms)


@dataclass(frozen=True, slots=True)
class Bucket:
    bid: int
    start_ms: int
    end_ms: int
    """The event times it can hold: its strategy's reign cuts the first and last bucket short."""


@dataclass(frozen=True, slots=True)
class BucketHistory:
    """A tier's strategies, oldest first; the first one reigns from the epoch.

    Raises:
        ValueError: what is wrong with the list.
    """

    strategies: tuple[BucketStrategy, ...]
    starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < len(self.strategies) <= MAX_STRATEGIES:
            raise ValueError(f"expected 1 to {MAX_STRATEGIES} bucket strategies, got {len(self.strategies)}")
        if self.strategies[0].effective_from_ms != 0:
            raise ValueError("expected the first bucket strategy to reign from the epoch (1970-01-01T00:00:00Z)")
        starts = tuple(s.effective_from_ms for s in self.strategies)
        if any(later <= earlier for earlier, later in itertools.pairwise(starts)):
            raise ValueError("expected bucket strategies in ascending order of effective_from, without repeats")
        if any(s.width_ms < HOUR_MS for s in self.strategies):
            raise ValueError("expected bucket widths of at least 1 hour: bucket numbers have 24 bits")
        object.__setattr__(self, "starts", starts)

    def bid(self, event_ms: int) -> int:
        """The bucket that a writer puts an event of this time into.

        Raises:
            ValueError: a time before the epoch, or so far ahead that its number would spill into the version.
        """
        version = bisect_right(self.starts, event_ms) - 1
        number = event_ms // self.strategies[version].width_ms
        if not 0 <= number <= MAX_NUMBER:
            raise ValueError(f"expected an event time from the epoch to bucket {MAX_NUMBER}, got {event_ms} ms")
        return version << NUMBER_BITS | number

    def between(self, start_ms: int, end_ms: int) -> list[Bucket]:
        """Every bucket that can hold an event of `[start_ms, end_ms)`, oldest first, each once.

        A list as long as the range is wide: bound the range by the retention first.
        """
        return [bucket for version in range(len(self.starts)) for bucket in self._of(version, start_ms, end_ms)]

    def _of(self, version: int, start_ms: int, end_ms: int) -> Iterator[Bucket]:
        width, reign_start = self.strategies[version].width_ms, self.starts[version]
        reign_end = (MAX_NUMBER + 1) * width
        if version + 1 < len(self.starts):
            reign_end = min(reign_end, self.starts[version + 1])
        first, end = max(start_ms, reign_start), min(end_ms, reign_end)
        for number in range(first // width, -(-end // width) if end > first else 0):
            yield Bucket(
                version << NUMBER_BITS | number, max(number * width, reign_start), min((number + 1) * width, reign_end)
            )

    def extends(self, older: "BucketHistory") -> bool:
        """Whether this history only appends to `older`: nothing already written is looked for elsewhere."""
        return self.strategies[: len(older.strategies)] == older.strategies

    def contradiction(self, older: "BucketHistory", free_from_ms: int) -> str | None:
        """Why this history must not follow `older`, under which rows were written; None if it may.

        Args:
            older: the history in force.
            free_from_ms: from this event time on nothing has been written yet; a strategy that begins earlier would
                have readers look for rows where they are not.
        """
        if not self.extends(older):
            return "strategies under which rows were written were changed or removed; append to the list instead"
        added = self.strategies[len(older.strategies) :]
        if added and added[0].effective_from_ms < free_from_ms:
            return (
                f"a strategy was appended that is effective from {added[0].begins}, when rows may have "
                f"been written already; make it effective from {_iso(free_from_ms)} or later"
            )
        return None


def history(widths: Sequence[tuple[int, int]]) -> BucketHistory:
    """A history from `(effective_from_ms, width_ms)` pairs."""
    return BucketHistory(tuple(BucketStrategy(start, width) for start, width in widths))


def _iso(millis: int) -> str:
    """RFC 3339 in UTC, to the second above."""
    moment = datetime.fromtimestamp(-(-millis // 1000), UTC)
    return moment.isoformat().replace("+00:00", "Z")
