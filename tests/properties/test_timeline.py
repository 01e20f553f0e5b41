"""Paging gives every row of the range once, newest first, however the rows and buckets lie."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.config import ReaderSettings
from eventstore.events.stored import Position, StoredEvent
from eventstore.tenancy import BucketHistory, Tenant, Tier
from eventstore.tenancy.buckets import history
from eventstore.timeline import Timeline, TimelineQuery
from eventstore.timeline.cursor import Cursor, decode, encode
from tests.builders import DAY_MS, HOUR_MS, NOW_MS, eid, registry, stored, tier
from tests.timeline_memory import MemoryStore

pytestmark = pytest.mark.properties

RETENTION_DAYS = 15
SPAN_MS = (RETENTION_DAYS + 2) * DAY_MS
OLDEST = NOW_MS - SPAN_MS
FUTURE_MS = DAY_MS

# few distinct times, so that rows share milliseconds, and bucket borders, so that they lie on edges
moments = st.integers(OLDEST, NOW_MS + FUTURE_MS - 1) | st.integers(0, 17 * 4).map(
    lambda quarter: (OLDEST // DAY_MS) * DAY_MS + quarter * 6 * HOUR_MS
)
events = st.builds(stored, moments, st.integers(0, 10_000), st.sampled_from(["viewed", "bought"]))
timelines = st.lists(events, max_size=60, unique_by=lambda event: event.position)


@st.composite
def histories(draw: st.DrawFn) -> BucketHistory:
    changes = draw(st.lists(st.integers(OLDEST, NOW_MS + DAY_MS), max_size=3, unique=True))
    widths = draw(st.lists(st.integers(6 * HOUR_MS, 12 * DAY_MS), min_size=len(changes) + 1, max_size=len(changes) + 1))
    return history(list(zip([0, *sorted(changes)], widths, strict=True)))


@st.composite
def queries(draw: st.DrawFn) -> TimelineQuery:
    start, end = sorted(draw(st.lists(moments, min_size=2, max_size=2, unique=True)))
    return TimelineQuery(
        "shop",
        "u1",
        start_ms=draw(st.sampled_from([None, start])),
        end_ms=draw(st.sampled_from([None, end])),
        event=draw(st.sampled_from([None, "viewed"])),
    )


def reader(store: MemoryStore, on: Tier, rows: int, concurrency: int) -> Timeline:
    known = registry(Tenant("shop", on))
    return Timeline(
        lambda: known, store, lambda: NOW_MS, ReaderSettings(page_rows=rows, concurrency=concurrency), FUTURE_MS
    )


def expected(rows: list[StoredEvent], query: TimelineQuery) -> list[StoredEvent]:
    start = max(query.start_ms or 0, NOW_MS - RETENTION_DAYS * DAY_MS)
    end = query.end_ms or NOW_MS + FUTURE_MS
    found = [row for row in rows if start <= row.timestamp < end and query.event in (None, row.event)]
    return sorted(found, key=lambda row: row.position, reverse=True)


@given(
    rows=timelines,
    newer=st.lists(events, max_size=5),
    buckets=histories(),
    query=queries(),
    limit=st.integers(1, 25),
    fetch=st.integers(1, 10),
    concurrency=st.integers(1, 5),
)
def test_pages_joined_are_the_range_newest_first_even_while_events_arrive(  # noqa: PLR0917 — Hypothesis fills them by name
    rows: list[StoredEvent],
    newer: list[StoredEvent],
    buckets: BucketHistory,
    query: TimelineQuery,
    limit: int,
    fetch: int,
    concurrency: int,
) -> None:
    on = tier(days=RETENTION_DAYS, buckets=buckets)
    store = MemoryStore()
    store.insert("shop", "u1", on, *rows)
    store.insert("shop", "u2", on, stored(NOW_MS, 77_777))
    store.insert("forum", "u1", on, stored(NOW_MS, 88_888))
    timeline = reader(store, on, fetch, concurrency)

    async def pages() -> list[StoredEvent]:
        found: list[StoredEvent] = []
        cursor = None
        arriving = list(newer)
        while True:
            page = await timeline.page(query, limit=limit, cursor=cursor)
            found += page.events
            cursor = page.next_cursor
            if cursor is None:
                return found
            assert len(page.events) == limit
            if arriving:  # newer than all that was handed out: it must not move a page
                event = arriving.pop()
                moved = stored(max(event.timestamp, found[0].timestamp + 1), 1, event.event)
                store.insert("shop", "u1", on, moved)

    assert asyncio.run(pages()) == expected(rows, query)


@given(rows=timelines, buckets=histories(), query=queries(), fetch=st.integers(1, 10), concurrency=st.integers(1, 5))
def test_iterating_and_counting_agree_with_the_range(
    rows: list[StoredEvent], buckets: BucketHistory, query: TimelineQuery, fetch: int, concurrency: int
) -> None:
    on = tier(days=RETENTION_DAYS, buckets=buckets)
    store = MemoryStore()
    store.insert("shop", "u1", on, *rows)
    timeline = reader(store, on, fetch, concurrency)

    async def everything() -> list[StoredEvent]:
        return [event async for event in timeline.iterate(query)]

    assert asyncio.run(everything()) == expected(rows, query)
    assert asyncio.run(timeline.count(query)) == len(expected(rows, query))


@given(rows=timelines, late=events, buckets=histories(), limit=st.integers(1, 5))
def test_an_event_that_arrives_late_below_the_cursor_is_on_a_later_page(
    rows: list[StoredEvent], late: StoredEvent, buckets: BucketHistory, limit: int
) -> None:
    on = tier(days=RETENTION_DAYS, buckets=buckets)
    store = MemoryStore()
    store.insert("shop", "u1", on, *rows)
    timeline = reader(store, on, 10, 3)
    query = TimelineQuery("shop", "u1")

    async def pages() -> list[StoredEvent]:
        first = await timeline.page(query, limit=limit)
        found = list(first.events)
        if first.next_cursor is not None and late.position < found[-1].position:
            store.insert("shop", "u1", on, late)
            rows[:] = [row for row in rows if row.position != late.position] + [late]
        cursor = first.next_cursor
        while cursor is not None:
            page = await timeline.page(query, limit=limit, cursor=cursor)
            found += page.events
            cursor = page.next_cursor
        return found

    found = asyncio.run(pages())
    assert found == expected(rows, query)


@given(
    start=st.none() | st.integers(0, 2**62),
    moment=st.integers(0, 2**62),
    number=st.integers(0, 2**64),
    tenant=st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
    event=st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
)
def test_a_cursor_comes_back_as_it_was(
    start: int | None, moment: int, number: int, tenant: str, event: str | None
) -> None:
    query = replace(TimelineQuery("shop", "u1"), tenant=tenant, event=event)
    cursor = Cursor(start, Position(moment, eid(number)))

    assert decode(encode(cursor, query), query) == cursor
