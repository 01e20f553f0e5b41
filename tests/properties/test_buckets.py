"""Whatever the history of bucket strategies, readers look where writers wrote."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eventstore.tenancy.buckets import (
    HOUR_MS,
    MAX_NUMBER,
    MAX_STRATEGIES,
    NUMBER_BITS,
    BucketHistory,
    BucketStrategy,
    history,
)

pytestmark = pytest.mark.properties

YEAR_MS = 365 * 24 * HOUR_MS
times = st.integers(0, 100 * YEAR_MS)
widths = st.integers(HOUR_MS, 400 * 24 * HOUR_MS)


@st.composite
def histories(draw: st.DrawFn) -> BucketHistory:
    starts = draw(st.lists(st.integers(1, 100 * YEAR_MS), max_size=6, unique=True))
    return history([(start, draw(widths)) for start in [0, *sorted(starts)]])


@st.composite
def ranges_around(draw: st.DrawFn, event_ms: int) -> tuple[int, int]:
    """A range that holds the event, at most about a thousand of the narrowest buckets wide."""
    before, after = draw(st.integers(0, 500 * HOUR_MS)), draw(st.integers(1, 500 * HOUR_MS))
    return event_ms - before, event_ms + after


@given(histories(), times, st.data())
def test_the_readers_list_contains_the_writers_bucket_exactly_once(
    buckets: BucketHistory, event_ms: int, data: st.DataObject
) -> None:
    start, end = data.draw(ranges_around(event_ms))
    read = [bucket.bid for bucket in buckets.between(start, end)]
    assert read.count(buckets.bid(event_ms)) == 1


@given(histories(), times, st.data())
def test_no_bucket_is_listed_twice_and_they_join_oldest_first(
    buckets: BucketHistory, event_ms: int, data: st.DataObject
) -> None:
    listed = buckets.between(*data.draw(ranges_around(event_ms)))
    assert len({bucket.bid for bucket in listed}) == len(listed)
    assert all(earlier.end_ms == later.start_ms for earlier, later in pairwise(listed))


@given(histories(), times)
def test_a_buckets_bounds_hold_its_events_and_no_others(buckets: BucketHistory, event_ms: int) -> None:
    (bucket,) = buckets.between(event_ms, event_ms + 1)
    assert bucket.start_ms <= event_ms < bucket.end_ms
    assert buckets.bid(bucket.start_ms) == buckets.bid(bucket.end_ms - 1) == bucket.bid
    assert buckets.bid(bucket.end_ms) != bucket.bid
    assert bucket.start_ms == 0 or buckets.bid(bucket.start_ms - 1) != bucket.bid


@given(histories(), times, st.data())
def test_every_listed_bucket_can_hold_an_event_of_the_range(
    buckets: BucketHistory, event_ms: int, data: st.DataObject
) -> None:
    start, end = data.draw(ranges_around(event_ms))
    assert all(bucket.start_ms < end and bucket.end_ms > start for bucket in buckets.between(start, end))


@given(histories(), times)
def test_a_bid_carries_its_version_and_stays_a_positive_cql_int(buckets: BucketHistory, event_ms: int) -> None:
    bid = buckets.bid(event_ms)
    strategy = buckets.strategies[bid >> NUMBER_BITS]
    assert strategy.effective_from_ms <= event_ms
    assert 0 <= bid < 2**31


@given(histories(), st.integers(1, 10 * YEAR_MS), widths, times)
def test_appending_a_strategy_keeps_the_bids_of_earlier_events(
    older: BucketHistory, later_by: int, width: int, event_ms: int
) -> None:
    begins = older.strategies[-1].effective_from_ms + later_by
    newer = BucketHistory((*older.strategies, BucketStrategy(begins, width)))
    assume(event_ms < begins)
    assert newer.bid(event_ms) == older.bid(event_ms)
    assert newer.extends(older)
    assert newer.contradiction(older, free_from_ms=begins) is None
    assert newer.contradiction(older, free_from_ms=begins + 1) is not None


@given(histories(), histories())
def test_a_history_without_contradiction_never_moves_a_written_event(
    older: BucketHistory, newer: BucketHistory
) -> None:
    free_from = older.strategies[-1].effective_from_ms + 1
    if newer.contradiction(older, free_from) is None:
        written = [*(s.effective_from_ms for s in older.strategies), free_from - 1]
        assert [newer.bid(event_ms) for event_ms in written] == [older.bid(event_ms) for event_ms in written]


@given(histories(), st.integers(max_value=-1))
def test_a_time_before_the_epoch_has_no_bucket(buckets: BucketHistory, event_ms: int) -> None:
    with pytest.raises(ValueError, match="expected an event time"):
        buckets.bid(event_ms)
    assert buckets.between(event_ms, 0) == []


@given(histories(), st.integers(1, 10**9))
def test_a_number_never_spills_into_the_version(buckets: BucketHistory, beyond: int) -> None:
    last = (MAX_NUMBER + 1) * buckets.strategies[-1].width_ms
    with pytest.raises(ValueError, match="expected an event time"):
        buckets.bid(last - 1 + beyond)


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ([], "1 to 128"),
        ([(n, HOUR_MS) for n in range(MAX_STRATEGIES + 1)], "1 to 128"),
        ([(1, HOUR_MS)], "reign from the epoch"),
        ([(0, HOUR_MS), (5, HOUR_MS), (5, HOUR_MS)], "ascending"),
        ([(0, HOUR_MS - 1)], "at least 1 hour"),
    ],
)
def test_a_list_that_would_lose_rows_is_no_history(pairs: list[tuple[int, int]], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        history(pairs)


def test_a_contradiction_says_from_when_a_strategy_may_begin() -> None:
    older, newer = history([(0, HOUR_MS)]), history([(0, HOUR_MS), (7_200_000, HOUR_MS)])
    told = newer.contradiction(older, free_from_ms=10_800_000)
    assert told is not None
    assert "effective from 1970-01-01T02:00:00Z" in told
    assert "1970-01-01T03:00:00Z or later" in told
