"""From posts seen to the rows that keep them. Pure; `now` is passed in.

Both times of a row are written without a read before: `last_seen` with the time seen as its write timestamp, so that the
newest wins, `first_seen` with that time mirrored at the beginning of the bucket, so that the oldest wins. The mirror keeps
write timestamps near the time seen and never ahead of it.
"""

from collections.abc import Iterable, Iterator

from eventstore.events.impressions import Impression, Impressions, Seen
from eventstore.tenancy import Bucket, Tier
from eventstore.tenancy.sections import MAX_RETENTION

MICROS = 1_000_000


def rows_of(record: Impressions, posts: Iterable[Seen], tier: Tier, now_micros: int) -> Iterator[Impression]:
    """The rows of those posts that are not past their retention."""
    bucket, ttl_seconds = Bucket(0, 0, 0), 0
    for seen in posts:
        if left_seconds(tier, seen.micros, now_micros) <= 0:
            continue
        seen_ms = seen.micros // 1_000
        if not bucket.start_ms <= seen_ms < bucket.end_ms:
            (bucket,) = tier.buckets.between(seen_ms, seen_ms + 1)
            ttl_seconds = min(left_seconds(tier, bucket.end_ms * 1_000, now_micros), MAX_RETENTION)
        yield Impression(
            uid=record.uid,
            tenant=record.tenant,
            bid=bucket.bid,
            post=seen.post,
            seen_micros=seen.micros,
            mirrored_micros=2 * 1_000 * bucket.start_ms - seen.micros,
            ttl_seconds=ttl_seconds,
        )


def left_seconds(tier: Tier, micros: int, now_micros: int) -> int:
    """Until this time is past the retention of impressions."""
    return tier.impressions_retention_seconds + (micros - now_micros) // MICROS
