import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from eventstore.config import ReaderSettings
from eventstore.errors import CursorError, QueryError, TransientStoreError, UnknownTenantError
from eventstore.events.stored import Slice, StoredEvent
from eventstore.tenancy import Registry, Tenant
from eventstore.timeline import Page, Timeline, TimelineQuery
from tests.builders import DAY_MS, HOUR_MS, NOW_MS, registry, stored, tier
from tests.timeline_memory import MemoryStore

pytestmark = pytest.mark.unit

TIER = tier(days=30, width_days=1)
QUERY = TimelineQuery("shop", "u1")


def timeline(store: MemoryStore, known: Registry | None = None, *, concurrency: int = 8, rows: int = 500) -> Timeline:
    held = known or registry(Tenant("shop", TIER))
    return Timeline(
        lambda: held, store, lambda: NOW_MS, ReaderSettings(concurrency=concurrency, page_rows=rows), DAY_MS
    )


def holding(*events: StoredEvent) -> MemoryStore:
    store = MemoryStore()
    store.insert("shop", "u1", TIER, *events)
    return store


def one_a_day(count: int) -> list[StoredEvent]:
    return [stored(NOW_MS - day * DAY_MS, day) for day in range(count)]


def run(coroutine: Coroutine[Any, Any, Page]) -> Page:
    return asyncio.run(coroutine)


def test_a_page_is_the_newest_events_and_a_cursor_to_the_rest() -> None:
    events = one_a_day(5)
    page = run(timeline(holding(*events)).page(QUERY, limit=3))

    assert page.events == events[:3]
    assert page.next_cursor is not None
    rest = run(timeline(holding(*events)).page(QUERY, limit=3, cursor=page.next_cursor))
    assert rest.events == events[3:]
    assert rest.next_cursor is None


def test_a_user_without_events_has_an_empty_page() -> None:
    assert run(timeline(MemoryStore()).page(QUERY)) == Page([], None)


def test_an_event_slightly_ahead_of_the_clock_is_seen() -> None:
    ahead = stored(NOW_MS + 1_500)

    assert run(timeline(holding(ahead)).page(QUERY)).events == [ahead]


def test_a_small_page_of_a_chatty_user_reads_three_buckets_of_31() -> None:
    store = holding(*(stored(NOW_MS - number * 1_000, number) for number in range(1_000)))

    run(timeline(store).page(QUERY, limit=10))
    tomorrow, today, yesterday = store.asked
    assert tomorrow.since_ms > NOW_MS
    assert today.since_ms <= NOW_MS < today.before.timestamp_ms
    assert yesterday.before.timestamp_ms == today.since_ms
    assert store.fetched == 10


def test_no_more_buckets_are_read_at_once_than_allowed() -> None:
    most = 0
    now = 0

    class Counting(MemoryStore):
        async def read(self, part: Slice, event: str | None, limit: int) -> list[StoredEvent]:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1
            return await super().read(part, event, limit)

    store = Counting()
    events = one_a_day(30)
    store.insert("shop", "u1", TIER, *events)
    assert run(timeline(store, concurrency=5).page(QUERY)).events == events
    assert most == 5


def test_a_slow_newest_bucket_still_comes_first() -> None:
    class SlowFirst(MemoryStore):
        async def read(self, part: Slice, event: str | None, limit: int) -> list[StoredEvent]:
            for _ in range(20 if part.since_ms <= NOW_MS < part.before.timestamp_ms else 0):
                await asyncio.sleep(0)
            return await super().read(part, event, limit)

    store = SlowFirst()
    events = one_a_day(10)
    store.insert("shop", "u1", TIER, *events)
    assert run(timeline(store).page(QUERY)).events == events


def test_a_failing_bucket_fails_the_page_and_cancels_the_other_reads() -> None:
    cancelled = []

    class Failing(MemoryStore):
        async def read(self, part: Slice, event: str | None, limit: int) -> list[StoredEvent]:
            if not self.asked:
                self.asked.append(part)
                await asyncio.sleep(0)
                raise TransientStoreError("cluster c30: gone")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(part)
                raise
            return []

    with pytest.raises(TransientStoreError, match="gone"):
        run(timeline(Failing()).page(QUERY))
    assert len(cancelled) == 1


def test_iterating_gives_everything_once_and_may_stop_early() -> None:
    events = [stored(NOW_MS - number * HOUR_MS, number) for number in range(100)]
    reader = timeline(holding(*events), rows=7)

    async def everything() -> list[StoredEvent]:
        return [event async for event in reader.iterate(QUERY)]

    async def first() -> StoredEvent:
        async with aclosing(reader.iterate(QUERY)) as found:
            return await anext(found)

    assert asyncio.run(everything()) == events
    assert asyncio.run(first()) == events[0]


def test_iterating_goes_on_from_a_cursor() -> None:
    events = one_a_day(9)
    reader = timeline(holding(*events))
    cursor = run(reader.page(QUERY, limit=4)).next_cursor

    async def rest() -> list[StoredEvent]:
        return [event async for event in reader.iterate(QUERY, cursor=cursor)]

    assert asyncio.run(rest()) == events[4:]


def test_the_latest_event_of_a_name_is_found_behind_newer_ones_of_other_names() -> None:
    wanted = stored(NOW_MS - 20 * DAY_MS, 1, "added_to_cart")
    store = holding(wanted, stored(NOW_MS - 25 * DAY_MS, 2, "added_to_cart"), *one_a_day(5))

    assert asyncio.run(timeline(store).latest(TimelineQuery("shop", "u1", event="added_to_cart"))) == wanted
    assert asyncio.run(timeline(store).latest(TimelineQuery("shop", "u1", event="signed_up"))) is None


def test_counting_covers_the_range_and_the_filter() -> None:
    store = holding(*one_a_day(10), stored(NOW_MS, 99, "added_to_cart"))

    def count(query: TimelineQuery) -> int:
        return asyncio.run(timeline(store).count(query))

    assert count(QUERY) == 11
    assert count(TimelineQuery("shop", "u1", event="added_to_cart")) == 1
    assert count(TimelineQuery("shop", "u1", start_ms=NOW_MS - 2 * DAY_MS, end_ms=NOW_MS)) == 2
    assert count(TimelineQuery("shop", "u1", start_ms=0, end_ms=1)) == 0


def test_the_second_page_keeps_the_range_of_the_first() -> None:
    events = one_a_day(9)
    reader = timeline(holding(*events))
    cursor = run(reader.page(TimelineQuery("shop", "u1", start_ms=NOW_MS - 5 * DAY_MS), limit=2)).next_cursor

    later = TimelineQuery("shop", "u1", start_ms=NOW_MS - 3 * DAY_MS)
    assert run(reader.page(later, cursor=cursor)).events == events[2:6]


def test_an_unknown_tenant_is_named_with_the_nearest_known() -> None:
    with pytest.raises(UnknownTenantError, match=r"got 'shopp'; did you mean 'shop'\?"):
        run(timeline(MemoryStore()).page(TimelineQuery("shopp", "u1")))
    with pytest.raises(UnknownTenantError, match="eventstore tenants list"):
        run(timeline(MemoryStore()).page(TimelineQuery("zzz", "u1")))


def test_a_disabled_tenant_can_be_read() -> None:
    known = registry(Tenant("shop", TIER, enabled=False))
    events = one_a_day(2)

    assert run(timeline(holding(*events), known).page(QUERY)).events == events


def test_a_registry_put_in_force_later_counts_at_once() -> None:
    current = registry(Tenant("shop", TIER))
    store = MemoryStore()
    reader = Timeline(lambda: current, store, lambda: NOW_MS, ReaderSettings(), DAY_MS)
    current = registry(Tenant("shop", TIER), Tenant("forum", TIER))

    assert run(reader.page(TimelineQuery("forum", "u1"))).events == []


@pytest.mark.parametrize("limit", [0, -1, 1_001])
def test_a_page_size_out_of_bounds_is_refused(limit: int) -> None:
    with pytest.raises(QueryError, match="expected 1 to 1000"):
        run(timeline(MemoryStore()).page(QUERY, limit=limit))


def test_a_foreign_cursor_is_refused_before_anything_is_read() -> None:
    store = holding(*one_a_day(3))
    cursor = run(timeline(store).page(QUERY, limit=1)).next_cursor
    store.asked.clear()

    with pytest.raises(CursorError):
        run(timeline(store).page(TimelineQuery("shop", "u2"), cursor=cursor))
    assert store.asked == []


def test_a_page_encodes_with_the_stored_json_untouched() -> None:
    event = StoredEvent(1, stored().eid, "x", msgspec.Raw(b'{"price": 1.50}'), msgspec.Raw(b"{}"))

    assert b'"properties":{"price": 1.50}' in msgspec.json.encode(Page([event], None))


def test_the_newest_of_listed_names_are_at_hand_by_name() -> None:
    store = MemoryStore()
    for event in (stored(NOW_MS - 1, 1), stored(NOW_MS, 2), stored(NOW_MS - 9, 3, "added_to_cart")):
        store.keep("shop", "u1", event)
    known = registry(
        Tenant("shop", tier(), latest=("product_viewed", "added_to_cart", "never_sent")), Tenant("forum", tier())
    )
    reader = timeline(store, known)
    cart, product = stored(NOW_MS - 9, 3, "added_to_cart"), stored(NOW_MS, 2)
    every = {"product_viewed": product, "added_to_cart": cart}
    assert asyncio.run(reader.at_hand("shop", "u1")) == every
    assert asyncio.run(reader.at_hand("shop", "u1", ["added_to_cart", "added_to_cart"])) == {"added_to_cart": cart}
    assert asyncio.run(reader.at_hand("shop", "u2")) == {}
    for tenant, names, told in (
        ("shop", ["product_viewed", "signed_up"], r"tenants\.shop\.latest \(product_viewed, .*\), got 'signed_up'"),
        ("forum", [], r"list of names in tenants\.forum\.latest, found none"),
    ):
        with pytest.raises(QueryError, match=told):
            asyncio.run(reader.at_hand(tenant, "u1", names))
