import pytest

from eventstore.errors import QueryError
from eventstore.events.stored import LOWEST_EID, Position
from eventstore.tenancy.buckets import history
from eventstore.timeline import TimelineQuery
from eventstore.timeline.plan import plan
from tests.builders import DAY_MS, HOUR_MS, NOW_MS, eid, tier

pytestmark = pytest.mark.unit

NO_FUTURE = 1


def asked(**fields: int | None) -> TimelineQuery:
    return TimelineQuery("shop", "u1", **fields)  # type: ignore[arg-type]  # the optional times


def test_slices_come_newest_first_and_touch_without_overlap() -> None:
    slices = plan(asked(), tier(), NOW_MS, NO_FUTURE, None)

    assert len(slices) == 4
    assert slices[0].before == Position(NOW_MS + NO_FUTURE)
    assert [newer.since_ms for newer in slices[:-1]] == [older.before.timestamp_ms for older in slices[1:]]
    assert all(part.before.eid == LOWEST_EID for part in slices)


def test_nothing_older_than_the_retention_is_looked_for() -> None:
    oldest = plan(asked(start_ms=0), tier(days=30), NOW_MS, NO_FUTURE, None)[-1]

    assert oldest.since_ms == NOW_MS - 30 * DAY_MS


def test_a_range_older_than_the_retention_needs_no_read() -> None:
    query = asked(start_ms=NOW_MS - 50 * DAY_MS, end_ms=NOW_MS - 40 * DAY_MS)

    assert plan(query, tier(days=30), NOW_MS, NO_FUTURE, None) == []


def test_an_open_end_covers_the_future_that_workers_accept() -> None:
    assert plan(asked(), tier(), NOW_MS, DAY_MS, None)[0].before == Position(NOW_MS + DAY_MS)


def test_an_end_in_the_year_9999_needs_no_more_buckets() -> None:
    far = plan(asked(end_ms=253_402_300_799_000), tier(), NOW_MS, DAY_MS, None)

    assert far == plan(asked(), tier(), NOW_MS, DAY_MS, None)


def test_a_page_goes_on_inside_the_millisecond_where_the_last_one_stopped() -> None:
    last = Position(NOW_MS - 5 * DAY_MS, eid(7))
    first, *rest = plan(asked(), tier(), NOW_MS, DAY_MS, last)

    assert first.before == last
    assert first.since_ms <= last.timestamp_ms
    assert all(part.before < last for part in rest)


def test_a_position_on_a_bucket_border_stays_in_its_own_bucket() -> None:
    buckets = history([(0, DAY_MS)])
    border = NOW_MS // DAY_MS * DAY_MS
    last = Position(border, eid(1))
    first = plan(asked(), tier(buckets=buckets), NOW_MS, DAY_MS, last)[0]

    assert (first.bid, first.since_ms, first.before) == (buckets.bid(border), border, last)


def test_a_change_of_strategy_inside_the_range_reads_both() -> None:
    change = NOW_MS - 3 * DAY_MS
    buckets = history([(0, 10 * DAY_MS), (change, HOUR_MS * 24)])
    slices = plan(asked(), tier(days=15, buckets=buckets), NOW_MS, NO_FUTURE, None)

    assert {part.bid >> 24 for part in slices if part.since_ms >= change} == {1}
    assert {part.bid >> 24 for part in slices if part.since_ms < change} == {0}


@pytest.mark.parametrize(
    ("tenant", "uid", "event"),
    [("", "u", None), ("shop", "", None), ("shop", "u" * 257, None), ("shop", "u", ""), ("shop", "\udcff", None)],
)
def test_names_that_no_event_can_have_are_refused(tenant: str, uid: str, event: str | None) -> None:
    with pytest.raises(QueryError, match="expected"):
        TimelineQuery(tenant, uid, event=event)


@pytest.mark.parametrize(("start", "end"), [(5, 5), (6, 5)])
def test_a_range_without_room_is_refused(start: int, end: int) -> None:
    with pytest.raises(QueryError, match=f"expected a start before its end, got {start} to {end}"):
        asked(start_ms=start, end_ms=end)
