"""What a record must have left in the store, and what there is of it. Pure; `now` is passed in."""

from collections.abc import Hashable, Mapping, Sequence
from enum import StrEnum
from itertools import chain
from typing import Final, NamedTuple

from eventstore.events import Coordinates
from eventstore.events.cells import Cells, encode
from eventstore.events.impressions import Impression, encode_impression
from eventstore.events.row import Row
from eventstore.ingest.admission import MICROS, ClockRules
from eventstore.ingest.impressions import left_seconds
from eventstore.store.lookup import PartitionKey, PostKey, RowKey, StoredPost, StoredRow
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


class Stored(NamedTuple):
    """Those rows that are there of the ones that were looked for."""

    rows: Mapping[RowKey, StoredRow]
    posts: Mapping[PostKey, StoredPost]


class ExpectedRow(NamedTuple):
    """A row that an event must have made, or must not have left."""

    record: Record
    row: Row
    tier: Tier
    erased: bool = False

    @property
    def key(self) -> RowKey:
        row = self.row
        return RowKey(PartitionKey(row.uid, row.tenant, row.bid), row.ts_ms, row.eid)

    @property
    def identity(self) -> Hashable:
        """Equal for records that make the same row."""
        return self.key

    @property
    def cells(self) -> list[Cells]:
        return [encode(self.row)]

    def found(self, stored: Stored, now_micros: int, rules: ClockRules) -> Found:
        """How the row compares with what it must be."""
        row, there = self.row, stored.rows.get(self.key)
        if self.erased:
            return Found.ERASED if there is None else Found.RESURRECTED
        left = row.write_micros // MICROS + self.tier.retention_seconds - now_micros // MICROS
        if there is None:
            return Found.EXPIRED if left <= SLACK_SECONDS else Found.MISSING
        newer = there.write_micros > row.write_micros
        if newer and there.write_micros // 1_000 != row.ts_ms:
            return Found.OVERWRITTEN
        if not newer and there[:4] != (row.event, row.properties, row.context, row.write_micros):
            return Found.DIFFERENT
        if not lives_rightly(there.ttl_seconds, left, self.tier.retention_seconds, rules):
            return Found.LIFETIME
        return Found.SUPERSEDED if newer else Found.IDENTICAL


class ExpectedPosts(NamedTuple):
    """The rows that a record of impressions must have made, or must not have left. It is as its worst row is."""

    record: Record
    impressions: Sequence[Impression]
    tier: Tier
    erased: bool = False

    @property
    def keys(self) -> list[PostKey]:
        return list(map(_post_key, self.impressions))

    @property
    def identity(self) -> Hashable:
        """No other record's: a row tells of many sightings."""
        return source_of(self.record)

    @property
    def cells(self) -> list[Cells]:
        return list(chain.from_iterable(map(encode_impression, self.impressions)))

    def found(self, stored: Stored, now_micros: int, _rules: ClockRules) -> Found:
        """How the rows compare with what they must be."""
        outcomes = {self._of(each, stored.posts.get(_post_key(each)), now_micros) for each in self.impressions}
        return min(outcomes, key=_WORST_FIRST.index)

    def _of(self, impression: Impression, there: StoredPost | None, now_micros: int) -> Found:
        if self.erased:
            # what was seen after the erasure stays
            again = there is not None and there.begins_by(impression.seen_micros // 1_000)
            return Found.RESURRECTED if again else Found.ERASED
        if there is None:
            left = left_seconds(self.tier, impression.seen_micros, now_micros)
            return Found.EXPIRED if left <= SLACK_SECONDS else Found.MISSING
        if not there.spans(impression.seen_micros // 1_000):
            return Found.DIFFERENT
        return Found.LIFETIME if there.ttl_seconds is None else Found.IDENTICAL


Expected = ExpectedRow | ExpectedPosts
_WORST_FIRST: Final = (
    Found.RESURRECTED, Found.MISSING, Found.DIFFERENT, Found.LIFETIME, Found.IDENTICAL, Found.EXPIRED, Found.ERASED,
)  # fmt: skip


def source_of(record: Record) -> Coordinates:
    return Coordinates(record.topic(), record.partition(), record.offset())


def _post_key(impression: Impression) -> PostKey:
    return PostKey(PartitionKey(impression.uid, impression.tenant, impression.bid), impression.post)


def lives_rightly(ttl_seconds: int | None, left: int, retention_seconds: int, rules: ClockRules) -> bool:
    """Whether an event's row expires when it may.

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
