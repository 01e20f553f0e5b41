"""What a TimelineStore promises, held against the one in memory and the one over CQL."""

import asyncio
import random
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, Protocol, TypeVar
from uuid import UUID, uuid1, uuid4

import msgspec
import pytest
from cassandra.cluster import Session
from cassandra.query import BoundStatement

from eventstore.config import ReaderSettings
from eventstore.events.cells import STATEMENTS, Cells, values
from eventstore.events.impressions import Impression, encode_impression
from eventstore.events.row import Row
from eventstore.events.stored import LOWEST_EID, Partition, Position, SeenPost, Slice, StoredEvent
from eventstore.registry import load_registry
from eventstore.store.reader import EventReader
from eventstore.store.schema import apply_schema
from eventstore.store.session import close, connect
from eventstore.store.statements import statement_in
from eventstore.tenancy import Cluster, Tenant, Tier
from eventstore.tenancy.buckets import history
from eventstore.timeline import Timeline, TimelineQuery, TimelineStore
from tests.builders import DAY_MS, HOUR_MS, NOW_MS, eid, latest, registry, stored, tier
from tests.stacks import RunningStack
from tests.timeline_memory import MemoryStore, server_order

pytestmark = pytest.mark.contract

T = TypeVar("T")

PAGE_ROWS = 7
"""Few rows a page, so that small data show paging."""
BID = 3
FIRST = NOW_MS - HOUR_MS


class Held(Protocol):
    """A store under test and how a test puts rows into it; every test has a user of its own."""

    @property
    def store(self) -> TimelineStore: ...

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """What the store answers, on the event loop that it lives on."""
        ...

    def insert(self, tenant: str, uid: str, bid: int, events: list[StoredEvent]) -> None: ...

    def keep(self, tenant: str, uid: str, event: StoredEvent) -> None: ...

    def show(self, *impressions: Impression) -> None: ...


class InMemory:
    def __init__(self) -> None:
        self.store = MemoryStore()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(call)

    def insert(self, tenant: str, uid: str, bid: int, events: list[StoredEvent]) -> None:
        self.store.partitions[tenant, uid, bid].update((event.position, event) for event in events)

    def keep(self, tenant: str, uid: str, event: StoredEvent) -> None:
        self.store.keep(tenant, uid, event)

    def show(self, *impressions: Impression) -> None:
        for each in impressions:
            held = self.store.impressions[Partition(each.uid, each.tenant, each.bid)]
            millis = each.seen_micros // 1_000
            shown = SeenPost(each.post, millis, millis)
            held[each.post] = shown.joined(held.get(each.post, shown))


class OverCql:
    def __init__(self, cluster: Cluster, session: Session, runner: asyncio.Runner) -> None:
        limits = ReaderSettings(page_rows=PAGE_ROWS, request_timeout=10.0)
        self.run = runner.run
        self.store = self.run(EventReader.open(cluster, connect(cluster), limits))
        self.session = session
        self.inserts = {
            head: session.prepare(statement_in(cluster.keyspace, name)) for head, name in STATEMENTS.items()
        }
        self.prepared = session.prepare(
            "INSERT INTO events (tenant, uid, bid, ts, eid, event, properties, context) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )

    def insert(self, tenant: str, uid: str, bid: int, events: list[StoredEvent]) -> None:
        for row in events:
            texts = bytes(row.properties).decode(), bytes(row.context).decode()
            self.session.execute(self.prepared, (tenant, uid, bid, row.timestamp, row.eid, row.event, *texts))

    def show(self, *impressions: Impression) -> None:
        for cells in chain.from_iterable(map(encode_impression, impressions)):
            self.write(cells)

    def keep(self, tenant: str, uid: str, event: StoredEvent) -> None:
        row = Row(
            uid=uid, tenant=tenant, bid=BID, ts_ms=event.timestamp, eid=event.eid.bytes, event=event.event,
            properties=bytes(event.properties), context=bytes(event.context), write_micros=event.timestamp * 1_000,
            ttl_seconds=None,
        )  # fmt: skip
        self.write(latest(row))

    def write(self, cells: Cells) -> None:
        """By the statements that the workers use."""
        bound = BoundStatement(self.inserts[cells[:2]])
        bound.values = values(cells)
        self.session.execute(bound)


@pytest.fixture(scope="module")
def over_cql(stack: RunningStack) -> Iterator[OverCql]:
    t30 = load_registry(stack.registry_path).tiers["t30"]
    cluster = replace(t30.cluster, keyspace=f"timeline_{uuid4().hex[:12]}")
    session = connect(cluster, request_timeout=20.0)
    apply_schema(session, replace(t30, cluster=cluster))
    with asyncio.Runner() as runner:
        made = OverCql(cluster, session, runner)
        yield made
        made.run(made.store.close())
    session.execute(f"DROP KEYSPACE {cluster.keyspace}")
    close(session)


@pytest.fixture(params=["in_memory", pytest.param("over_cql", marks=pytest.mark.integration)])
def held(request: pytest.FixtureRequest) -> Held:
    made: Held = InMemory() if request.param == "in_memory" else request.getfixturevalue("over_cql")
    return made


@pytest.fixture
def uid() -> str:
    return f"user-{uuid4()}"


def whole(uid: str, *, since: int = 0, before: Position | None = None) -> Slice:
    return Slice("shop", uid, BID, since, before or Position(NOW_MS + DAY_MS))


def read(held: Held, part: Slice, event: str | None = None, limit: int = PAGE_ROWS) -> list[StoredEvent]:
    return held.run(held.store.read(part, event, limit))


def count(held: Held, part: Slice, event: str | None = None) -> int:
    return held.run(held.store.count(part, event))


def one_by_one(held: Held, part: Slice, event: str | None) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    while rows := read(held, part, event, 1):
        found += rows
        part = part.older_than(rows[-1].position)
    return found


def test_rows_come_newest_first_from_the_start_up_to_but_not_including_the_end(held: Held, uid: str) -> None:
    events = [stored(FIRST + number, number) for number in range(10)]
    held.insert("shop", uid, BID, events)

    part = whole(uid, since=FIRST + 2, before=Position(FIRST + 6))
    assert read(held, part) == [events[5], events[4], events[3], events[2]]
    assert count(held, part) == 4


def test_a_limit_gives_the_newest_and_fewer_rows_mean_the_end(held: Held, uid: str) -> None:
    events = [stored(FIRST + number, number) for number in range(3 * PAGE_ROWS + 1)]
    held.insert("shop", uid, BID, events)

    assert read(held, whole(uid), limit=1) == events[-1:]
    assert read(held, whole(uid), limit=20) == events[:-21:-1]
    assert read(held, whole(uid), limit=100) == events[::-1]


@pytest.mark.parametrize("event", [None, "product_viewed"])
def test_reading_on_from_any_row_neither_skips_nor_repeats_within_a_millisecond(
    held: Held, uid: str, event: str | None
) -> None:
    eids = [uuid1(), uuid1(), uuid4(), uuid4(), uuid4(), eid(1), eid(2), LOWEST_EID, UUID(int=2**128 - 1)]
    events = [replace_eid(stored(moment), each) for moment in (FIRST, FIRST + 1) for each in eids]
    held.insert("shop", uid, BID, events)

    ordered = sorted(events, key=lambda row: server_order(row.position), reverse=True)
    assert one_by_one(held, whole(uid), event) == ordered
    assert read(held, whole(uid), event, 100) == ordered
    for index, row in enumerate(ordered):
        assert count(held, whole(uid, before=row.position), event) == len(ordered) - index - 1


def test_the_lowest_eid_lies_inside_at_the_start_and_outside_at_the_end(held: Held, uid: str) -> None:
    events = [replace_eid(stored(FIRST), LOWEST_EID), replace_eid(stored(FIRST + 1), LOWEST_EID)]
    held.insert("shop", uid, BID, events)

    assert read(held, whole(uid, since=FIRST, before=Position(FIRST + 1))) == events[:1]


def test_a_filter_on_the_name_fills_the_limit_with_matches(held: Held, uid: str) -> None:
    names = ["viewed"] * 20 + ["bought"] + ["viewed"] * 20 + ["bought"] * 2
    events = [stored(FIRST + number // 3, number, name) for number, name in enumerate(names)]
    held.insert("shop", uid, BID, events)

    bought = [events[42], events[41], events[20]]
    assert read(held, whole(uid), "bought", 2) == bought[:2]
    assert read(held, whole(uid), "bought", 4) == bought
    assert one_by_one(held, whole(uid), "bought") == bought
    assert (count(held, whole(uid), "bought"), count(held, whole(uid), "sold")) == (3, 0)
    assert count(held, whole(uid, before=bought[0].position), "bought") == 2


def test_another_tenant_user_or_bucket_is_not_seen(held: Held, uid: str) -> None:
    mine = stored(FIRST, 1)
    held.insert("shop", uid, BID, [mine])
    held.insert("forum", uid, BID, [stored(FIRST, 2)])
    held.insert("shop", uid + "0", BID, [stored(FIRST, 3)])
    held.insert("shop", uid, BID + 1, [stored(FIRST, 4)])

    assert read(held, whole(uid)) == [mine]
    assert count(held, whole(uid)) == 1


def test_a_user_nobody_has_seen_has_no_rows(held: Held, uid: str) -> None:
    assert read(held, whole(uid)) == []
    assert read(held, whole(uid), "viewed") == []
    assert count(held, whole(uid)) == 0


def test_the_stored_json_comes_back_as_it_was_sent(held: Held, uid: str) -> None:
    text = '{"price": 1.50, "n": 123456789012345678901234567890,\n "ö\\u00e4": ["😀"], "n": 2}'
    event = StoredEvent(FIRST, eid(1), "gekauft ✓", msgspec.Raw(text.encode()), msgspec.Raw(b"{ }"))
    held.insert("shop", uid, BID, [event])

    [found] = read(held, whole(uid))
    assert (bytes(found.properties).decode(), bytes(found.context), found.event) == (text, b"{ }", event.event)


def test_of_each_name_that_is_asked_for_the_newest_event_is_at_hand(held: Held, uid: str) -> None:
    for number in (2, 3, 1):
        held.keep("shop", uid, stored(FIRST + number, number))
    held.keep("shop", uid, stored(FIRST, 9, "größe, 1"))
    held.keep("shop", uid, stored(FIRST, 4, "not asked for"))
    held.keep("forum", uid, stored(FIRST + 7, 7))
    found = held.run(held.store.latest("shop", uid, ["product_viewed", "größe, 1", "never came"]))
    assert {event.event: event for event in found} == {
        "product_viewed": stored(FIRST + 3, 3),
        "größe, 1": stored(FIRST, 9, "größe, 1"),
    }
    assert held.run(held.store.latest("shop", f"{uid}-other", ["product_viewed"])) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_timeline_over_the_store_joins_its_pages_across_buckets_and_strategies(
    held: Held, uid: str, seed: int
) -> None:
    dice = random.Random(seed)
    buckets = history([(0, 6 * DAY_MS), (NOW_MS - 11 * DAY_MS, 2 * DAY_MS), (NOW_MS - 4 * DAY_MS, 5 * DAY_MS)])
    moments = [NOW_MS - dice.randrange(15 * DAY_MS) // HOUR_MS * HOUR_MS for _ in range(60)]
    events = [stored(moment, number, dice.choice(["a", "b"])) for number, moment in enumerate(moments)]
    for event in events:
        held.insert("shop", uid, buckets.bid(event.timestamp), [event])

    for query in (TimelineQuery("shop", uid), TimelineQuery("shop", uid, event="a", start_ms=NOW_MS - 9 * DAY_MS)):
        expected = [
            row for row in events if row.timestamp >= (query.start_ms or 0) and query.event in (None, row.event)
        ]
        expected.sort(key=lambda row: row.position, reverse=True)
        assert held.run(paged(held.store, tier(days=30, buckets=buckets), query, dice.randrange(1, 20))) == expected


async def paged(store: TimelineStore, on: Tier, query: TimelineQuery, limit: int) -> list[StoredEvent]:
    class Everywhere:
        async def of(self, cluster: Cluster) -> TimelineStore:
            return store

    known = registry(Tenant("shop", on))
    timeline = Timeline(lambda: known, Everywhere(), lambda: NOW_MS, ReaderSettings(page_rows=PAGE_ROWS), DAY_MS)
    page = await timeline.page(query, limit=limit)
    found = list(page.events)
    while page.next_cursor is not None:
        page = await timeline.page(query, limit=limit, cursor=page.next_cursor)
        found += page.events
    assert await timeline.count(query) == len(found)
    return found


def shown(uid: str, post: str, at_ms: int, bid: int = BID) -> Impression:
    micros = at_ms * 1_000
    return Impression(uid, "shop", bid, post, micros, 2 * FIRST * 1_000 - micros, 3_600)


@pytest.mark.parametrize("seed", range(3))
def test_of_a_post_the_oldest_and_the_newest_time_stay_in_whatever_order_they_come(
    held: Held, uid: str, seed: int
) -> None:
    times = [FIRST + number for number in (0, 5, 7, 1_000, HOUR_MS)]
    random.Random(seed).shuffle(times)
    held.show(*(shown(uid, "p1", at) for at in times))
    held.show(*(shown(uid, "p1", at) for at in times[:2]))  # once more, as a replay does

    candidates = [f"p{number}" for number in range(250)]
    posts = held.run(held.store.seen(Partition(uid, "shop", BID), candidates))
    assert posts == [SeenPost("p1", FIRST, FIRST + HOUR_MS)]


def test_posts_come_by_their_ids_and_reading_on_neither_skips_nor_repeats(held: Held, uid: str) -> None:
    ids = ["A", "a", "aa", "ä", "z", "ß", "p 1", "😀"]
    held.show(*(shown(uid, post, FIRST) for post in ids), shown(uid, "other", FIRST, BID + 1))

    of, found = Partition(uid, "shop", BID), [""]
    while posts := held.run(held.store.posts(of, found[-1], 3)):
        found += [seen.post for seen in posts]
    assert found[1:] == sorted(ids, key=str.encode)
    assert {seen.post for seen in held.run(held.store.seen(of, [*ids, "other"]))} == set(ids)


def replace_eid(event: StoredEvent, new: UUID) -> StoredEvent:
    return msgspec.structs.replace(event, eid=new)
