"""Records of posts seen: what passes as one, and the rows that they make."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from eventstore.events import Coordinates, Reason, Rejected
from eventstore.events.cells import FIRST_SEEN, LAST_SEEN, values
from eventstore.events.erasure import Erasures
from eventstore.events.impressions import Impression, encode_impression
from eventstore.ingest.admission import Admission, AdmittedPosts, ClockRules, Erased, Expired, Verdict
from eventstore.tenancy import Registry, Tenant
from eventstore.tenancy.buckets import history
from tests.builders import DAY_MS, NOW_MS, registry, tier

pytestmark = pytest.mark.unit

DAY = 86_400
NARROWER_FROM_MS = NOW_MS - NOW_MS % DAY_MS - 3 * DAY_MS
T30 = replace(
    tier("t30", buckets=history([(0, 10 * DAY_MS), (NARROWER_FROM_MS, DAY_MS)])), impressions_retention_seconds=20 * DAY
)


def verdict(
    *posts: Any, key: bytes = b"shop:u1", of: Registry | None = None, floor: int | None = None, **fields: Any
) -> Verdict:
    of = of or registry(Tenant("shop", T30), Tenant("closed", T30, enabled=False))
    value = orjson.dumps({"tenant": "shop", "uid": "u1", "posts": posts, "at": NOW_MS} | fields)
    erasures = Erasures({} if floor is None else {key: floor})
    return Admission(of, NOW_MS * 1_000, ClockRules(), erasures).verdict(
        value, key, lambda: Coordinates("events", 0, 1)
    )


def rows(*posts: Any, **fields: Any) -> list[Impression]:
    found = verdict(*posts, **fields)
    assert isinstance(found, AdmittedPosts), found
    return list(found.impressions)


def test_every_post_is_a_row_seen_when_it_says_or_else_when_the_record_does() -> None:
    earlier = NOW_MS - 5_000
    found = rows("p1", {"id": "p2", "at": earlier}, {"id": "größe", "at": "2026-09-21T12:00:00.123456+02:00"})
    assert [(row.post, row.seen_micros) for row in found] == [
        ("p1", NOW_MS * 1_000), ("p2", earlier * 1_000), ("größe", 1_789_984_800_123_456),
    ]  # fmt: skip
    assert {(row.uid, row.tenant) for row in found} == {("u1", "shop")}


def test_a_row_stands_in_the_bucket_of_the_time_seen() -> None:
    ages = (0, 1, 2, 5, 15)
    found = rows(*({"id": f"p{age}", "at": NOW_MS - age * DAY_MS} for age in ages))
    assert [row.bid for row in found] == [T30.buckets.bid(NOW_MS - age * DAY_MS) for age in ages]


def test_the_oldest_wins_where_the_newest_does_and_neither_is_written_ahead_of_its_time() -> None:
    earlier, later = rows(*({"id": "p1", "at": NARROWER_FROM_MS + minute * 60_000} for minute in (7, 9)))
    assert earlier.bid == later.bid
    assert earlier.seen_micros < later.seen_micros
    assert earlier.mirrored_micros > later.mirrored_micros
    start_micros = NARROWER_FROM_MS * 1_000
    assert start_micros - later.mirrored_micros == later.seen_micros - start_micros


def test_all_rows_of_a_bucket_expire_together_when_its_end_is_past_the_retention() -> None:
    first, last = rows({"id": "p1", "at": NARROWER_FROM_MS}, {"id": "p2", "at": NARROWER_FROM_MS + DAY_MS - 1})
    end_ms = NARROWER_FROM_MS + DAY_MS
    assert first.ttl_seconds == last.ttl_seconds == 20 * DAY + (end_ms - NOW_MS) // 1_000


def test_posts_past_their_retention_are_left_out() -> None:
    old, kept = ({"id": f"p{age}", "at": NOW_MS - age * 1_000} for age in (20 * DAY, 20 * DAY - 1))
    (row,) = rows(old, kept)
    assert (row.post, row.ttl_seconds > 0) == ("p1727999", True)
    assert verdict(old) == Expired(T30)


def test_posts_of_an_erased_past_are_left_out() -> None:
    old, new = ({"id": post, "at": at} for post, at in (("old", NOW_MS - 1), ("new", NOW_MS)))
    (row,) = rows(old, new, floor=(NOW_MS - 1) * 1_000)
    assert row.post == "new"
    assert verdict(old, new, floor=NOW_MS * 1_000) == Erased()
    assert verdict(old, tenant="gone", key=b"gone:u1", floor=NOW_MS * 1_000) == Erased(), "never a dead letter"


@pytest.mark.parametrize(
    ("posts", "fields", "reason", "told"),
    [
        ((), {}, Reason.LIMIT, "posts: expected 1 to 1000, got 0"),
        (["p"] * 1_001, {}, Reason.LIMIT, "posts: expected 1 to 1000, got 1001"),
        (["p", ""], {}, Reason.LIMIT, "posts[1]: id: expected 1 to 256 bytes, got 0"),
        (["ü" * 129], {}, Reason.LIMIT, "posts[0]: id: expected 1 to 256 bytes, got 258"),
        (["p\0"], {}, Reason.LIMIT, "posts[0]: id: expected text without NUL characters"),
        (["p"], {"at": None}, Reason.TIMESTAMP, "posts[0]: expected a time seen, got none"),
        (["p"], {"at": "2026-09-21T10:00:00"}, Reason.TIMESTAMP, "posts[0]: expected RFC 3339 with a zone"),
        (["p", {"id": "q", "at": NOW_MS + 2 * DAY_MS}], {}, Reason.TIMESTAMP, "posts[1]: expected at most 86400 s"),
        ([{"id": "q", "at": -1}], {}, Reason.TIMESTAMP, "posts[0]: expected a time since 1970"),
        (["p"], {"uid": ""}, Reason.LIMIT, "uid: expected 1 to 256 bytes"),
        ([7], {}, Reason.MALFORMED, "Expected `str | object`, got `int` - at `$.posts[0]`"),
        (["p"], {"event": "seen"}, Reason.MALFORMED, "unknown field `event`"),
        (["p"], {"uid": "u2"}, Reason.KEY_MISMATCH, "expected the key 'shop:u2', got 'shop:u1'"),
        (["p"], {"tenant": "nobody", "key": b"nobody:u1"}, Reason.UNKNOWN_TENANT, "got 'nobody'"),
        (["p"], {"tenant": "closed", "key": b"closed:u1"}, Reason.DISABLED_TENANT, "is disabled"),
        (["p" * 200] * 200, {}, Reason.TOO_LARGE, "expected at most 32768 bytes"),
    ],
)
def test_a_record_that_breaks_a_rule_is_rejected_whole(
    posts: list[Any], fields: dict[str, Any], reason: Reason, told: str
) -> None:
    found = verdict(*posts, **fields)
    assert isinstance(found, Rejected), found
    assert found.reason is reason
    assert told in found.detail


def test_a_record_without_posts_is_told_what_an_event_lacks() -> None:
    found = Admission(registry(), NOW_MS * 1_000, ClockRules()).verdict(b'{"tenant":"shop"}', b"shop:u1", lambda: None)  # type: ignore[arg-type, return-value]
    assert isinstance(found, Rejected)
    assert "`uid`" in found.detail


def test_both_statements_bind_the_same_row_and_time_under_write_timestamps_of_their_own() -> None:
    (row,) = rows({"id": "größe", "at": NOW_MS - 1_500})
    last, first = encode_impression(row)
    assert (last[:2], first[:2]) == (LAST_SEEN, FIRST_SEEN)
    shared = [b"u1", b"shop", row.bid.to_bytes(4, "big"), "größe".encode(), (NOW_MS - 1_500).to_bytes(8, "big")]
    life = row.ttl_seconds.to_bytes(4, "big")
    assert values(last) == [*shared, row.seen_micros.to_bytes(8, "big"), life]
    assert values(first) == [*shared, row.mirrored_micros.to_bytes(8, "big"), life]
