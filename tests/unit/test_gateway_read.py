"""Questions over HTTP: how they are read, shared, bounded and answered, over a timeline in memory."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import msgspec
import pytest

from eventstore.config import ReaderSettings
from eventstore.errors import ConfigurationError, PermanentStoreError, QueryError, TransientStoreError
from eventstore.events.stored import Slice, StoredEvent
from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.bulkhead import Bulkhead
from eventstore.gateway.coalesce import Flights
from eventstore.gateway.http import HttpError, Request, Response, Streamed
from eventstore.gateway.read import Reader
from eventstore.tenancy import RateLimit, Tenant
from eventstore.timeline import Timeline
from tests.builders import DAY_MS, NOW_MS, registry, tier
from tests.gateways import no_body
from tests.timeline_memory import MemoryStore

pytestmark = pytest.mark.unit

SHOP = Tenant("shop", tier())
NO_HEADERS: Mapping[str, str] = {}
OTHER = Tenant("other", tier("t15", days=15))


class Store(MemoryStore):
    """Answers when it is let, or fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.free.set()
        self.error: Exception | None = None

    async def read(self, part: Slice, event: str | None, limit: int) -> list[StoredEvent]:
        await self.free.wait()
        if self.error is not None:
            raise self.error
        return await super().read(part, event, limit)


@dataclass
class Desk:
    """A reader over a store in memory, and questions to it."""

    store: Store = field(default_factory=Store)
    tenant: Tenant = SHOP
    seconds: float = 60.0
    most_open: int = 4

    def __post_init__(self) -> None:
        current = registry(self.tenant, OTHER)
        limits = ReaderSettings(page_rows=100)
        self.reader = Reader(
            Doorkeeper(lambda: current, lambda: 0.0),
            Timeline(lambda: current, self.store, lambda: NOW_MS, limits, DAY_MS),
            Bulkhead(self.most_open, self.seconds),
            Bulkhead(1, self.seconds),
        )

    def fill(self, count: int, properties: bytes = b"{}") -> None:
        self.store.insert("shop", "u1", self.tenant.tier, *(
            StoredEvent(NOW_MS - n * 1_000, UUID(int=n + 1), "viewed" if n % 2 else "bought",
                        msgspec.Raw(properties), msgspec.Raw(b"{}"))
            for n in range(count)
        ))  # fmt: skip

    def request(self, query: str = "", tenant: Tenant | None = None, headers: Any = NO_HEADERS) -> Request:
        return Request(
            method="GET", path="", query_string=query, headers=headers, receive=no_body, body_seconds=1.0,
            received_micros=NOW_MS * 1_000, params={"uid": "u1"}, tenant=tenant or self.tenant,
        )  # fmt: skip

    async def page(self, query: str = "", tenant: Tenant | None = None) -> Any:
        answer = await self.reader.events(self.request(query, tenant))
        assert isinstance(answer, Response)
        assert answer.status == 200
        return json.loads(answer.body)

    async def lines(self, query: str = "format=ndjson", headers: Any = NO_HEADERS) -> list[bytes]:
        answer = await self.reader.events(self.request(query, headers=headers))
        assert isinstance(answer, Streamed)
        return [part async for part in answer.parts]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    asyncio.run(main())


def test_pages_follow_one_another_by_the_cursor() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.fill(25)
        seen, cursor = [], ""
        while True:
            page = await desk.page(f"last=7d&limit=10{cursor}")
            seen += [event["timestamp"] for event in page["events"]]
            if page["cursor"] is None:
                break
            cursor = f"&cursor={page['cursor']}"
        assert seen == [NOW_MS - n * 1_000 for n in range(25)]

    run(scenario)


def test_stored_json_is_passed_on_as_it_is() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.fill(1, b'{ "price":1.10,  "big":12345678901234567890123 }')
        answer = await desk.reader.events(desk.request())
        assert isinstance(answer, Response)
        assert b'"properties":{ "price":1.10,  "big":12345678901234567890123 }' in answer.body

    run(scenario)


def test_a_range_and_a_name_choose() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.fill(20)
        assert len((await desk.page("last=10s"))["events"]) == 11
        assert {event["event"] for event in (await desk.page("event=bought"))["events"]} == {"bought"}
        count = await desk.reader.count(desk.request("event=bought"))
        assert json.loads(count.body) == {"count": 10}

    run(scenario)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("last=soon", "last: expected a duration"),
        ("last=7d&from=2026-01-01T00:00:00Z", "last: expected last or from, got both"),
        ("from=yesterday", "from: expected RFC 3339"),
        ("to=2026-01-01", "to: expected RFC 3339"),
        ("from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", "range: expected a start before its end"),
        ("limit=0", "limit: expected a whole number from 1 to 1000, got '0'"),
        ("limit=1001", "limit: expected"),
        ("limit=-1", "limit: expected"),
        ("limit=%D9%A1", "limit: expected"),
        ("limit=99999999999999999999", "limit: expected"),
        ("limit=1&limit=2", "each field once"),
        ("event=", "event: expected 1 to 128 bytes"),
        ("cursor=abc", "cursor: expected one that this version gave out"),
        ("limits=5", "limits: expected one of"),
        ("format=xml", "format: expected json or ndjson"),
        ("format=ndjson&limit=5", "limit: expected none with ndjson"),
        ("format=ndjson&cursor=5", "cursor: expected none with ndjson"),
        ("event=%ff", "percent-encoded UTF-8"),
    ],
)
def test_a_question_that_cannot_be_answered_is_told_by_its_parameter(query: str, told: str) -> None:
    async def scenario() -> None:
        with pytest.raises(HttpError) as refused:
            await Desk().page(query)
        assert refused.value.status == 400
        assert told in refused.value.detail

    run(scenario)


@pytest.mark.parametrize(
    "query", ["last=999999999d", "from=0001-01-01T00:00:00Z", "to=0001-01-01T00:00:00Z", "to=9999-12-31T23:59:59Z"]
)
def test_the_far_past_and_future_are_ranges_like_others(query: str) -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.fill(3)
        assert len((await desk.page(query))["events"]) == (0 if query.startswith("to=0001") else 3)

    run(scenario)


def test_an_export_is_everything_one_event_a_line() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.fill(2_500, b'{"text":\r\n "' + b"x" * 200 + b'"}')
        parts = await desk.lines("", {"accept": "application/x-ndjson"})
        events = [json.loads(line) for line in b"".join(parts).splitlines()]
        assert [event["timestamp"] for event in events] == [NOW_MS - n * 1_000 for n in range(2_500)]
        assert len(parts) > 5  # sent as it comes, not as a whole

    run(scenario)


def test_an_export_of_nothing_is_empty() -> None:
    async def scenario() -> None:
        assert await Desk().lines() == []

    run(scenario)


def test_an_export_that_fails_before_its_first_line_has_a_status() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.store.error = TransientStoreError("cluster c30: gone")
        with pytest.raises(HttpError) as refused:
            await desk.lines()
        assert refused.value.status == 503

    run(scenario)


def test_an_export_that_fails_in_the_middle_is_not_taken_for_whole() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.fill(2_500, b'{"text":"' + b"x" * 200 + b'"}')
        answer = await desk.reader.events(desk.request("format=ndjson"))
        assert isinstance(answer, Streamed)
        assert await anext(answer.parts)
        desk.store.error = TransientStoreError("cluster c30: gone")
        with pytest.raises(HttpError):
            async for _ in answer.parts:
                pass

    run(scenario)


def test_an_export_gives_its_place_back_when_its_reader_leaves() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.fill(2_500, b'{"text":"' + b"x" * 200 + b'"}')
        answer = await desk.reader.events(desk.request("format=ndjson"))
        assert isinstance(answer, Streamed)
        with pytest.raises(HttpError, match="too many reads"):
            await desk.lines()
        await answer.parts.aclose()  # type: ignore[attr-defined]  # a generator, as the service knows
        assert await desk.lines()

    run(scenario)


def test_the_same_question_at_the_same_time_is_asked_once() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.fill(3)
        desk.store.free.clear()
        asking = [asyncio.create_task(desk.page("last=7d")) for _ in range(4)]
        await asyncio.sleep(0.01)
        desk.store.free.set()
        pages = await asyncio.gather(*asking)
        alone = len(desk.store.asked)
        assert all(page == pages[0] for page in pages)
        await desk.page("last=7d")
        assert len(desk.store.asked) == 2 * alone

    run(scenario)


def test_a_read_that_takes_too_long_is_told_so_and_given_up() -> None:
    async def scenario() -> None:
        desk = Desk(seconds=0.01)
        desk.store.free.clear()
        with pytest.raises(HttpError, match=r"within 0\.01 s") as refused:
            await desk.page()
        assert refused.value.status == 504
        assert len(desk.reader._pages) == 0

    run(scenario)


@pytest.mark.parametrize(
    ("error", "status", "wait"),
    [
        (TransientStoreError("cluster c30: 10.0.0.7 is gone"), 503, "1"),
        (PermanentStoreError("cluster c30: 10.0.0.7 has no table"), 503, "30"),
        (ConfigurationError("clusters.c30: no password"), 503, "30"),
        (QueryError("range: not so"), 400, None),
    ],
)
def test_a_stores_trouble_is_told_without_its_addresses(error: Exception, status: int, wait: str | None) -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.store.error = error
        with pytest.raises(HttpError) as refused:
            await desk.page()
        assert refused.value.status == status
        assert dict(refused.value.headers).get("retry-after") == wait
        assert "10.0.0.7" not in refused.value.detail

    run(scenario)


def test_a_cluster_that_hangs_takes_its_own_places_only() -> None:
    async def scenario() -> None:
        desk = Desk(most_open=2)
        desk.store.free.clear()
        hanging = [asyncio.create_task(desk.page(f"limit={n + 1}")) for n in range(2)]
        await asyncio.sleep(0.01)
        with pytest.raises(HttpError, match="too many reads") as refused:
            await desk.page()
        assert refused.value.status == 503
        other = asyncio.create_task(desk.page(tenant=OTHER))
        await asyncio.sleep(0.01)
        assert not other.done()  # it was let in: its cluster is another
        desk.store.free.set()
        await asyncio.gather(*hanging, other)
        await desk.page()

    run(scenario)


def test_every_read_costs_a_token() -> None:
    async def scenario() -> None:
        desk = Desk(tenant=Tenant("shop", tier(), rate=RateLimit(1, 2)))
        await desk.page()
        await desk.reader.count(desk.request())
        with pytest.raises(HttpError) as refused:
            await desk.page()
        assert refused.value.status == 429

    run(scenario)


class Call:
    """A question's call: counts how often it was begun, and answers when it is let."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.free = asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return f"answer {self.begun}"


def test_who_leaves_does_not_disturb_the_others() -> None:
    async def scenario() -> None:
        flights, call = Flights[str](), Call()
        leaving, staying = (asyncio.create_task(flights.share("q", call)) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        call.free.set()
        assert await staying == "answer 1"
        assert (call.begun, call.cancelled, len(flights)) == (1, 0, 0)

    run(scenario)


def test_a_call_nobody_waits_for_ends_and_the_next_asks_anew() -> None:
    async def scenario() -> None:
        flights, call = Flights[str](), Call()
        leaving = asyncio.create_task(flights.share("q", call))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        call.free.set()
        assert await flights.share("q", call) == "answer 2"
        assert call.cancelled == 1

    run(scenario)


def test_an_error_is_shared_and_not_kept() -> None:
    async def scenario() -> None:
        flights = Flights[str]()
        asked = 0

        async def fail() -> str:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0)
            raise TransientStoreError("gone")

        errors = await asyncio.gather(*(flights.share("q", fail) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(error, TransientStoreError) for error in errors)
        assert (asked, len(flights)) == (1, 0)
        with pytest.raises(TransientStoreError):
            await flights.share("q", fail)
        assert asked == 2

    run(scenario)


def test_other_questions_are_asked_on_their_own() -> None:
    async def scenario() -> None:
        flights, call = Flights[str](), Call()
        call.free.set()
        await asyncio.gather(flights.share("q", call), flights.share("r", call))
        assert call.begun == 2

    run(scenario)
