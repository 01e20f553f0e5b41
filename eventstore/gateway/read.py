"""One user's past over HTTP: a page of events, all of them as lines, or how many there are."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import msgspec

from eventstore.errors import QueryError
from eventstore.events.stored import StoredEvent
from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.bulkhead import Bulkhead
from eventstore.gateway.coalesce import Flights
from eventstore.gateway.http import NDJSON, HttpError, Request, Response, Streamed, encode
from eventstore.gateway.openapi import answers, parameter
from eventstore.gateway.questions import RANGE, Range, fields_of, number
from eventstore.gateway.routes import Guard, Route
from eventstore.tenancy import Tenant
from eventstore.timeline import DEFAULT_PAGE, MAX_PAGE, Timeline, TimelineQuery

USER: Final = "/v1/tenants/{tenant}/users/{uid}"
FORMATS: Final = ("json", "ndjson")
PART_BYTES: Final = 64 * 1024
"""Of an export or a feed that are sent together."""

ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")
"""Producers' JSON may hold line breaks between its tokens, never inside a string."""


class EventsPage(msgspec.Struct, frozen=True):
    """Some events, newest first."""

    events: list[StoredEvent]
    cursor: str | None
    """Give it back for the next page; null: nothing older is left."""


class EventCount(msgspec.Struct, frozen=True):
    count: int


@dataclass(frozen=True, slots=True)
class Question:
    """All that makes one question differ from another: those that are equal share an answer."""

    tenant: str
    uid: str
    range: Range
    event: str | None
    limit: int = 0
    cursor: str | None = None

    def query(self, now_ms: int) -> TimelineQuery:
        """What to ask the timeline.

        Raises:
            HttpError: 400.
        """
        try:
            return TimelineQuery(
                self.tenant, self.uid, self.range.begins_ms(now_ms), self.range.end_ms, self.event
            )  # fmt: skip
        except QueryError as error:
            raise HttpError(400, str(error)) from error


@dataclass(frozen=True, slots=True)
class Reader:
    """The handlers of questions about events."""

    doorkeeper: Doorkeeper
    timeline: Timeline
    reads: Bulkhead
    exports: Bulkhead
    """Exports have places of their own: they last, and single reads shall not wait for them."""
    _pages: Flights[Response] = field(default_factory=Flights)

    def routes(self) -> list[Route]:
        return [
            Route("GET", f"{USER}/events", self.events, Guard.READ, "One user's events, newest first", operation=_EVENTS),
            Route("GET", f"{USER}/count", self.count, Guard.READ, "How many events there are", operation=_COUNT),
        ]  # fmt: skip

    async def events(self, request: Request) -> Response | Streamed:
        """A page as JSON; or the whole range as NDJSON."""
        tenant = self.doorkeeper.charged(request)
        fields = fields_of(request, (*RANGE, "event", "limit", "cursor", "format"))
        if _wants_lines(request, fields):
            return await self._export(tenant, request, fields)
        question = Question(
            tenant.name, request.params["uid"], Range.of(fields), fields.get("event"),
            number(fields, "limit", DEFAULT_PAGE, MAX_PAGE), fields.get("cursor"),
        )  # fmt: skip
        query = question.query(request.received_micros // 1_000)

        async def ask() -> Response:
            page = await self.timeline.page(query, limit=question.limit, cursor=question.cursor)
            return Response(200, encode(EventsPage(page.events, page.next_cursor)))

        return await self.reads.ask(tenant, lambda: self._pages.share(question, ask))

    async def count(self, request: Request) -> Response:
        """Counted by the servers."""
        tenant = self.doorkeeper.charged(request)
        fields = fields_of(request, (*RANGE, "event"))
        question = Question(tenant.name, request.params["uid"], Range.of(fields), fields.get("event"))
        query = question.query(request.received_micros // 1_000)

        async def ask() -> Response:
            return Response(200, encode(EventCount(await self.timeline.count(query))))

        return await self.reads.ask(tenant, lambda: self._pages.share(question, ask))

    async def _export(self, tenant: Tenant, request: Request, fields: dict[str, str]) -> Streamed:
        for name in ("limit", "cursor"):
            if name in fields:
                raise HttpError(
                    400, f"{name}: expected none with ndjson, which gives the whole range; narrow the range"
                )
        question = Question(tenant.name, request.params["uid"], Range.of(fields), fields.get("event"))
        parts = self._parts(tenant, question.query(request.received_micros // 1_000))
        # before the first byte is sent a failure still has a status of its own
        first = await anext(parts, b"")
        return Streamed(_LedBy(first, parts), (NDJSON,))

    async def _parts(self, tenant: Tenant, query: TimelineQuery) -> AsyncGenerator[bytes, None]:
        with self.exports.place(tenant):
            async with aclosing(self._lines(query)) as lines:
                while part := await self.exports.in_time(tenant, anext(lines, b"")):
                    yield part

    async def _lines(self, query: TimelineQuery) -> AsyncGenerator[bytes, None]:
        part = bytearray()
        async with aclosing(self.timeline.iterate(query)) as events:
            async for event in events:
                part += encode(event).translate(ONE_LINE)
                part += b"\n"
                if len(part) >= PART_BYTES:
                    yield bytes(part)
                    part.clear()
        if part:
            yield bytes(part)


def _wants_lines(request: Request, fields: dict[str, str]) -> bool:
    chosen = fields.get("format")
    if chosen is None:
        return NDJSON[1] in (request.headers.get("accept") or "")
    if chosen not in FORMATS:
        raise HttpError(400, f"format: expected json or ndjson, got {chosen[:80]!r}")
    return chosen == "ndjson"


class _LedBy:
    """A generator's parts behind the one that was taken already. Not a generator itself: closing one that has not begun
    would close nothing of what it holds.
    """

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        self._first = first
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await anext(self._rest)

    async def aclose(self) -> None:
        await self._rest.aclose()


RANGE_PARAMETERS: Final = (
    parameter("last", str, "How far back: `30d`, `12h`, `30m`, `90s`. Default: the whole retention.", pattern="^[0-9]{1,9}[dhms]$"),
    parameter("from", str, "First event time, inclusive: RFC 3339 with a zone. Not together with `last`.", format="date-time"),
    parameter("to", str, "Last event time, exclusive.", format="date-time"),
)  # fmt: skip
EVENT_PARAMETER: Final = parameter("event", str, "Only events of this name.", minLength=1, maxLength=128)

_EVENTS: Final = {
    "description": "With `Accept: application/x-ndjson` or `format=ndjson` the whole range, one event a line, as it comes.",
    "parameters": [
        *RANGE_PARAMETERS,
        EVENT_PARAMETER,
        parameter("limit", int, "Events of a page.", minimum=1, maximum=MAX_PAGE, default=DEFAULT_PAGE),
        parameter("cursor", str, "Go on where the page ended that gave this cursor: same user, same `event`."),
        parameter("format", str, "Default: as `Accept` says.", enum=list(FORMATS)),
    ],
    "responses": answers(EventsPage, lines=StoredEvent),
}
_COUNT: Final = {"parameters": [*RANGE_PARAMETERS, EVENT_PARAMETER], "responses": answers(EventCount)}
