"""One user live: Server-Sent Events of what is published about him, from where his reader left off."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self
from uuid import UUID

import msgspec
import structlog

from eventstore import metrics
from eventstore.errors import EventstoreError, KafkaError, QueryError
from eventstore.events import Coordinates
from eventstore.events.erasure import Erasures, erasure_key
from eventstore.events.stored import StoredEvent
from eventstore.gateway.access import Doorkeeper, bearer
from eventstore.gateway.http import EVENT_STREAM, HttpError, Request, Streamed, encode
from eventstore.gateway.questions import fields_of
from eventstore.gateway.read import ONE_LINE, PART_BYTES, USER
from eventstore.gateway.routes import Guard, Route
from eventstore.ingest.admission import Admission, Admitted, ClockRules
from eventstore.stream.chunk import Record
from eventstore.stream.erasures import ErasureTable
from eventstore.stream.headers import origin
from eventstore.stream.tail import Tail
from eventstore.stream.watch import Watch, WatchEnded
from eventstore.tenancy import Registry
from eventstore.timeline import TimelineQuery

log = structlog.stdlib.get_logger(__name__)

CATCH_UP: Final = 200_000
"""Most records of a partition that are read again for a reader who comes back; that takes about half a second."""
REMEMBERED: Final = 1_000
"""Events by which a reader is spared a double that a producer has sent twice."""
TURN: Final = 200
"""Records of the past that are judged before others have their turn: some milliseconds."""
OPEN_SECONDS: Final = 30.0
"""Until a feed that does not begin is given up; what Kafka itself is asked for has deadlines of its own below that."""
RETRY_MS: Final = 1_000
"""When a browser comes again after a break."""
BROKEN_SECONDS: Final = 1.0
STREAM: Final = (EVENT_STREAM, ("x-accel-buffering", "no"))  # nginx would hold events back
FROM: Final = ("now", "stored")
MAX_DIGITS: Final = 18
RESET: Final = b"event: reset\ndata: {}\n\n"
_NO_KAFKA: Final = HttpError(503, "the live feed waits for Kafka: try again", (("retry-after", "2"),))


class Place(NamedTuple):
    """Where a reader is: everything of his before `offset` he has been given. Any gateway knows what it means."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}.{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`.

        Raises:
            HttpError: 400.
        """
        numbers = text.split(".")
        if len(numbers) != len(cls._fields) or not all(_is_number(each) for each in numbers):
            raise HttpError(
                400, f"last-event-id: expected the id of an event of this feed, got {text[:80]!r}; leave it out"
            )
        return cls(*map(int, numbers))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS


@dataclass(slots=True)
class Feed:
    """What one reader is shown: judged by the workers' rules, each event once."""

    admission: Callable[[], Admission]
    _seen: dict[bytes, None] = field(default_factory=dict)

    def lines(self, records: Iterable[Record]) -> Iterator[bytes]:
        admission = self.admission()
        for record in records:
            place = Coordinates(record.topic() or "", record.partition() or 0, record.offset() or 0)
            first = origin(record.headers()) or place
            verdict = admission.verdict(record.value(), record.key(), lambda first=first: first)  # type: ignore[misc]
            if isinstance(verdict, Admitted) and verdict.row.eid not in self._seen:
                self._remember(verdict.row.eid)
                row = verdict.row
                shown = StoredEvent(row.ts_ms, UUID(bytes=row.eid), row.event, msgspec.Raw(row.properties), msgspec.Raw(row.context))  # fmt: skip
                yield _event(Place(place.partition, place.offset + 1), encode(shown))

    def _remember(self, eid: bytes) -> None:
        self._seen[eid] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]


def _event(place: Place, data: bytes) -> bytes:
    return b"id: %s\ndata: %s\n\n" % (str(place).encode(), data.translate(ONE_LINE))


def _in_parts(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Joined, in parts of about PART_BYTES: the server takes some parts ahead of what a reader has read, whatever their size."""
    part, size = [], 0
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= PART_BYTES:
            yield b"".join(part)
            part, size = [], 0
    if part:
        yield b"".join(part)


def _mark(place: Place) -> bytes:
    """No event: a browser remembers the place, and proxies see that the connection lives."""
    return b": beat\nid: %s\n\n" % str(place).encode()


@dataclass(slots=True)
class Live:
    """The handler of live feeds."""

    doorkeeper: Doorkeeper
    tail: Tail
    registry: Callable[[], Registry]
    rules: ClockRules
    group: str
    """The workers' consumer group: what it has committed is in the timeline."""
    heartbeat: float
    """Seconds between two signs of life."""
    most: int
    """Readers at a time."""
    clock: Callable[[], int]
    """Microseconds since the epoch."""
    erasures: Erasures = field(default_factory=Erasures)
    open: int = 0
    """Feeds that are open, or about to be."""
    _hearing: bool = False
    """Whether `erasures` is as the table is."""

    def routes(self) -> list[Route]:
        return [Route("GET", f"{USER}/live", self.live, Guard.READ, "One user's events as they are published", operation=_LIVE)]  # fmt: skip

    async def live(self, request: Request) -> Streamed:
        """The feed."""
        tenant = self.doorkeeper.charged(request)
        fields = fields_of(request, ("last_event_id", "from"))
        told = request.headers.get("last-event-id") or fields.get("last_event_id")
        last = Place.parse(told) if told else None
        if (since := fields.get("from", FROM[0])) not in FROM:
            raise HttpError(400, f"from: expected {' or '.join(FROM)}, got {since[:80]!r}")
        key = _key(tenant.name, request.params["uid"])
        if not self._hearing:
            raise _NO_KAFKA
        if self.open >= self.most:
            raise HttpError(
                503, f"expected at most {self.most} live feeds at a time: try again", (("retry-after", "5"),)
            )
        self.open += 1
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                return await self._opened(request, key, last, stored=since == "stored")
        except BaseException as error:
            self.open -= 1
            if isinstance(error, KafkaError | TimeoutError):
                raise self._away(error) from error
            raise

    async def _opened(self, request: Request, key: bytes, last: Place | None, *, stored: bool) -> Streamed:
        watch = await self.tail.watch(key)
        try:
            parts = await self._begun(request, watch, last, stored=stored)
            await anext(parts)
            return Streamed(parts, STREAM, lasting=True)
        except BaseException:
            self.tail.leave(watch)
            raise

    async def _begun(
        self, request: Request, watch: Watch, last: Place | None, *, stored: bool
    ) -> AsyncGenerator[bytes, None]:
        """The feed with what was missed at its head: until that is read, a failure still has a status of its own."""
        feed = Feed(self._admission)
        reachable = max(watch.held.first, watch.start - CATCH_UP)
        head = [b"retry: %d\n\n" % RETRY_MS]
        if last is not None and await self._holds(watch, last, reachable):
            since = last.offset
            watch.skip_to(since)  # another gateway may have been further than this one is
        elif last is not None or stored:
            since = max(reachable, (await self.tail.committed(self.group)).get(watch.partition, reachable))
            head += [RESET] if last is not None else []
        else:
            since = watch.start
        part = await self.tail.past(watch, since)
        for start in range(0, len(part.records), TURN):
            head += feed.lines(part.records[start : start + TURN])
            await asyncio.sleep(0)
        end = watch.start if part.whole else (part.records[-1].offset() or 0) + 1
        head.append(_mark(Place(watch.partition, end)))
        return self._parts(request, watch, feed, head, whole=part.whole)

    async def _holds(self, watch: Watch, last: Place, reachable: int) -> bool:
        """Whether what follows a place can still be had. One beyond the end is of another topic of this name, made anew."""
        if last.partition != watch.partition or last.offset < reachable:
            return False
        return last.offset <= watch.start or last.offset <= await self.tail.end(watch.partition)

    async def _parts(
        self, request: Request, watch: Watch, feed: Feed, head: list[bytes], *, whole: bool
    ) -> AsyncGenerator[bytes, None]:
        metrics.LIVE_FEEDS.inc()
        try:
            yield b""  # once it has begun, its end is certain to be run, whether or not anything is sent
            for part in _in_parts(head):
                yield part
            while whole:  # else the reader comes again for the rest
                records = await watch.take(self.heartbeat)
                self.doorkeeper.tenant_of(bearer(request.headers), Guard.READ)  # a revoked key opens no longer
                for part in _in_parts(feed.lines(records)):
                    yield part
                if not records:
                    yield _mark(Place(watch.partition, watch.position))
        except WatchEnded as ended:
            metrics.LIVE_ENDED.labels(ended.why.value).inc()
        except HttpError as error:
            log.info("live feed closed", reason=error.detail)
        finally:
            metrics.LIVE_FEEDS.dec()
            self.open -= 1
            self.tail.leave(watch)

    async def hear_erasures(self, table: ErasureTable) -> None:
        """Keep up with who is erased; until all erasures are known, and while they cannot be heard, feeds wait."""
        while True:
            try:
                async with table.follow(self.erasures) as listening:
                    self._hearing = True
                    await listening
            except EventstoreError as error:
                log.warning("live feeds wait until erasures can be heard", error=str(error))
            finally:
                self._hearing = False
            await asyncio.sleep(BROKEN_SECONDS)

    def _admission(self) -> Admission:
        return Admission(self.registry(), self.clock(), self.rules, self.erasures)

    def _away(self, error: KafkaError | TimeoutError) -> HttpError:
        log.warning("no live feed", error=str(error) or f"Kafka has not answered within {OPEN_SECONDS:g} s")
        return _NO_KAFKA


def _key(tenant: str, uid: str) -> bytes:
    try:
        TimelineQuery(tenant, uid)
    except QueryError as error:
        raise HttpError(400, str(error)) from error
    return erasure_key(tenant, uid)


_LIVE: Final = {
    "description": "Server-Sent Events. The id of each is where to go on: send it as `Last-Event-ID`. The data are an event as "
    "`/events` gives it. An event of type `reset` says that the place is out of reach: load the timeline again.",
    "parameters": [
        {"name": "last_event_id", "in": "query", "description": "The same as the header.", "schema": {"type": "string"}},
        {"name": "from", "in": "query", "schema": {"type": "string", "enum": list(FROM)},
         "description": "Without a place: `now`, or with everything that may not be in the timeline yet (`stored`)."},
    ],
    "responses": {"200": {"description": "OK", "content": {EVENT_STREAM[1]: {"schema": {"type": "string"}}}}},
}  # fmt: skip
