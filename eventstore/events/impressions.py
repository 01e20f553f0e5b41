"""Which posts a user has been shown: the record that tells it, its rules, and the cells of the rows that it makes."""

from collections.abc import Iterator
from datetime import datetime
from struct import Struct
from typing import Final

import msgspec

from eventstore.events.cells import FIRST_SEEN, LAST_SEEN, Cells, text
from eventstore.events.reject import Reason, Rejected
from eventstore.events.validate import check_text, check_time, check_uid

MAX_POSTS: Final = 1_000
"""Of one record."""
MAX_POST_BYTES: Final = 256
"""Of a post's id."""
BID: Final = Struct(">ii").pack
"""Length and value."""
SEEN: Final = Struct(">iqiqii").pack
"""Lengths and values: the time, the write timestamp, the time to live."""


class Post(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    id: str
    at: int | datetime
    """When it was seen: RFC 3339 with a zone, or milliseconds since the epoch."""


class Impressions(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What one user has seen, as published: one record on the event topic, under the same key as the user's events."""

    tenant: str
    uid: str
    at: int | datetime | None = None
    """When the posts without a time of their own were seen."""
    posts: list[str | Post]

    def times(self) -> Iterator[tuple[str, int | datetime | None]]:
        """The ids of the posts, and when they were seen."""
        for post in self.posts:
            yield (post, self.at) if isinstance(post, str) else (post.id, post.at)


class Seen(msgspec.Struct, frozen=True, gc=False):
    """A post, and when the user saw it, in microseconds since the epoch."""

    post: str
    micros: int


class Impression(msgspec.Struct, frozen=True, gc=False):
    """A post seen, as it is stored: one row of the table `impressions`, and how its two times are written."""

    uid: str
    tenant: str
    bid: int
    post: str
    seen_micros: int
    """Write timestamp of `last_seen`: the newest wins, in whatever order they arrive."""
    mirrored_micros: int
    """Write timestamp of `first_seen`: the time seen, mirrored at the beginning of its bucket, so that the oldest wins."""
    ttl_seconds: int
    """Until the retention of the bucket's end, for both times: they expire together."""


class _Kind(msgspec.Struct):
    posts: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_kind = msgspec.json.Decoder(_Kind).decode
_impressions = msgspec.json.Decoder(Impressions).decode


def decode_impressions(value: bytes) -> Impressions | Rejected | None:
    """The impressions in a record's value; None if it is not the record of any: it has no `posts`. Never raises."""
    try:
        if _kind(value).posts is msgspec.UNSET:
            return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    try:
        return _impressions(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Rejected(Reason.MALFORMED, str(error))


def posts_seen(record: Impressions, now_micros: int, max_future_micros: int) -> list[Seen] | Rejected:
    """Every post of the record; or, if any breaks a rule, the first fault: a record is stored whole or not at all."""
    if (wrong := check_uid(record.uid)) is not None:
        return wrong
    if not 0 < len(record.posts) <= MAX_POSTS:
        return Rejected(Reason.LIMIT, f"posts: expected 1 to {MAX_POSTS}, got {len(record.posts)}")
    found = []
    for place, (post, at) in enumerate(record.times()):
        seen = _seen(post, at, now_micros, max_future_micros)
        if isinstance(seen, Rejected):
            return Rejected(seen.reason, f"posts[{place}]: {seen.detail}")
        found.append(seen)
    return found


def _seen(post: str, at: int | datetime | None, now_micros: int, max_future_micros: int) -> Seen | Rejected:
    if (wrong := check_text("id", post, MAX_POST_BYTES)) is not None:
        return wrong
    if at is None:
        return Rejected(Reason.TIMESTAMP, "expected a time seen, got none: name it here, or `at` for the whole record")
    micros = check_time(at, now_micros, max_future_micros)
    return micros if isinstance(micros, Rejected) else Seen(post, micros)


def encode_impression(impression: Impression) -> tuple[Cells, Cells]:
    """The cells of both statements of a row: of when it was seen last, and first."""
    micros, ttl = impression.seen_micros, impression.ttl_seconds
    key = b"".join((text(impression.uid), text(impression.tenant), BID(4, impression.bid), text(impression.post)))
    return (
        LAST_SEEN + key + SEEN(8, micros // 1_000, 8, micros, 4, ttl),
        FIRST_SEEN + key + SEEN(8, micros // 1_000, 8, impression.mirrored_micros, 4, ttl),
    )
