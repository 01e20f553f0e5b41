"""Events in: the calls of the Segment API, and our own envelope. An answer of 200 says that Kafka has them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeVar

import msgspec

from eventstore import metrics
from eventstore.errors import KafkaError, TransientKafkaError
from eventstore.events import Coordinates, Rejected
from eventstore.events.decode import MAX_EVENT_BYTES
from eventstore.events.segment import CALLS, MAX_BATCH_BYTES, MAX_CALL_BYTES, Delivery
from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.http import HttpError, Request, Response, encode
from eventstore.gateway.intake import Intake, Refused, RefusedEvent
from eventstore.gateway.posting import batch_operation, call_operation, envelopes_operation
from eventstore.gateway.routes import Guard, Handler, Route
from eventstore.stream.dead_letters import Reject, dead_letter_headers
from eventstore.stream.publisher import Outgoing
from eventstore.tenancy import Tenant

T = TypeVar("T")

NEVER_IN_KAFKA: Final = -1
"""The partition that a dead letter names whose event was refused at the door; its offset is the time in microseconds."""
SHORT: Final = {"t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias"}
"""How Segment's library for browsers names the calls."""
LINES_AT_ONCE: Final = 500
MAX_EVENTS: Final = 10_000
"""Of a request that is not a stream: what the smallest batch of real events can hold, and no flood of rejects in one."""
TURN: Final = 500
"""Events that are judged before others' requests have their turn: some milliseconds."""
RETRY_AFTER: Final = ("retry-after", "1")
_ACCEPTED: Final = metrics.HTTP_EVENTS.labels("accepted")
_REJECTED: Final = metrics.HTTP_EVENTS.labels("rejected")


class Publisher(Protocol):
    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Returns when Kafka has confirmed every one."""
        ...


class Receipt(msgspec.Struct, frozen=True):
    """What became of the events of a request."""

    success: bool
    """Whether all of them were accepted."""
    accepted: int
    rejected: list[Refused]
    rejected_count: int


class _Key(msgspec.Struct):
    writeKey: str | None = None  # noqa: N815 — Segment's spelling
    sentAt: datetime | int | None = None  # noqa: N815


class _Batch(_Key):
    batch: list[msgspec.Raw] = []
    context: msgspec.Raw = msgspec.Raw(b"{}")


_key = msgspec.json.Decoder(_Key).decode
_batch = msgspec.json.Decoder(_Batch).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Collector:
    """The handlers of what is posted. Each charges the tenant for its events before it looks at them: what is beyond a rate
    shall cost as little as can be.
    """

    doorkeeper: Doorkeeper
    publisher: Publisher
    dead_letters: Publisher
    events_topic: str
    max_future_micros: int
    max_request_bytes: int
    """Of an array or a stream of envelopes."""

    def routes(self) -> list[Route]:
        batches = [Route("POST", f"/v1/{name}", self.batch, Guard.WRITE, summary, key_in_body=True, documented=shown,
                         operation=batch_operation(Receipt))
                   for name, summary, shown in (("batch", "Several calls at once", True),
                                                ("import", "Several calls of the past at once", True),
                                                ("b", "Several calls at once", False))]  # fmt: skip
        return [
            *(self._call_route(kind, kind, documented=True) for kind in CALLS),
            *(self._call_route(short, kind, documented=False) for short, kind in SHORT.items()),
            *batches,
            Route("POST", "/v1/events", self.events, Guard.WRITE, "Events in our own envelope: one, an array, or NDJSON",
                  operation=envelopes_operation(Receipt)),
        ]  # fmt: skip

    def _call_route(self, name: str, kind: str, *, documented: bool) -> Route:
        return Route("POST", f"/v1/{name}", self.call(kind), Guard.WRITE, f"A Segment `{kind}` call",
                     key_in_body=True, documented=documented, operation=call_operation(Receipt))  # fmt: skip

    def call(self, kind: str) -> Handler:
        """The handler of one of Segment's calls."""

        async def handle(request: Request) -> Response:
            raw = await request.body(MAX_CALL_BYTES)
            tenant = request.tenant or self._tenant_of(read_json(_key, raw).writeKey)
            self.doorkeeper.charge(tenant, 1)
            intake = self._intake(tenant, request)
            intake.call(raw, Delivery(tenant.name, request.received_micros, kind=kind))
            await self._settle(request, intake)
            return _receipt(intake, refusal=400)

        return handle

    async def batch(self, request: Request) -> Response:
        """Calls that each name their type. Bad ones are told by their place, good ones are accepted."""
        batch = read_json(_batch, await request.body(MAX_BATCH_BYTES))
        tenant = request.tenant or self._tenant_of(batch.writeKey)
        self._charge(tenant, batch.batch)
        intake = self._intake(tenant, request)
        delivery = Delivery(tenant.name, request.received_micros, batch.sentAt, batch.context)
        async for raw in _in_turns(batch.batch):
            intake.call(raw, delivery)
        await self._settle(request, intake)
        return _receipt(intake)

    async def events(self, request: Request) -> Response:
        """Envelopes. A stream of lines is published as it comes, so its size is bounded by time only, not by memory."""
        assert request.tenant is not None  # noqa: S101 — the guard: this route takes no key from its body
        intake = self._intake(request.tenant, request)
        if "ndjson" in (request.headers.get("content-type") or ""):
            await self._stream(request, intake)
            return _receipt(intake)
        raw = (await request.body(self.max_request_bytes)).strip()
        if not raw.startswith(b"["):
            self.doorkeeper.charge(intake.tenant, 1)
            intake.envelope(raw)
            await self._settle(request, intake)
            return _receipt(intake, refusal=400)
        envelopes = read_json(_list, raw)
        self._charge(intake.tenant, envelopes)
        async for each in _in_turns(envelopes):
            intake.envelope(each)
        await self._settle(request, intake)
        return _receipt(intake)

    async def _stream(self, request: Request, intake: Intake) -> None:
        try:
            async for lines in request.lines(MAX_EVENT_BYTES, LINES_AT_ONCE):
                self.doorkeeper.charge(intake.tenant, len(lines))
                for line in lines:
                    intake.envelope(line)
                await self._settle(request, intake)
        except HttpError as error:
            done = intake.accepted_count + intake.refused_count
            told = f"{error.detail}; {done} lines are done with: go on behind them"
            raise HttpError(error.status, told, error.headers) from error

    def _charge(self, tenant: Tenant, events: Sequence[msgspec.Raw]) -> None:
        """Raises HttpError: 413, 429."""
        if len(events) > MAX_EVENTS:
            raise HttpError(413, f"expected at most {MAX_EVENTS} events, got {len(events)}; send them in parts")
        self.doorkeeper.charge(tenant, len(events))

    def _tenant_of(self, key: str | None) -> Tenant:
        return self.doorkeeper.tenant_of(key, Guard.WRITE)

    def _intake(self, tenant: Tenant, request: Request) -> Intake:
        return Intake(tenant, request.received_micros, self.max_future_micros)

    async def _settle(self, request: Request, intake: Intake) -> None:
        """Have Kafka confirm what was accepted, and the dead letters what was refused, since the last time."""
        accepted, refused = intake.take()
        if not accepted and not refused:
            return
        with confirming():
            # the bad ones first: should they fail, nothing of the request has been accepted
            if refused:
                await self.dead_letters.publish([self._dead_letter(each, request.received_micros) for each in refused])
            if accepted:
                await self.publisher.publish(accepted)
            intake.settle(accepted, refused)
        _ACCEPTED.inc(len(accepted))
        _REJECTED.inc(len(refused))

    def _dead_letter(self, event: RefusedEvent, received_micros: int) -> Outgoing:
        reject = Reject(
            rejected=Rejected(event.refused.reason, event.refused.detail),
            coordinates=Coordinates(self.events_topic, NEVER_IN_KAFKA, received_micros),
            key=event.key,
            value=event.value,
            headers=[],
            timestamp_ms=received_micros // 1_000,
        )
        return Outgoing(event.key, event.value, dead_letter_headers(reject, received_micros / 1_000_000))


async def _in_turns(events: Sequence[msgspec.Raw]) -> AsyncIterator[bytes]:
    """Each event; every so many, others' requests have their turn."""
    for place, event in enumerate(events, 1):
        yield bytes(event)
        if not place % TURN:
            await asyncio.sleep(0)


@contextmanager
def confirming() -> Iterator[None]:
    """Answers with 503 what Kafka does not confirm."""
    try:
        yield
    except TransientKafkaError as error:
        raise HttpError(503, "Kafka has not confirmed the events: send them again", (RETRY_AFTER,)) from error
    except KafkaError as error:
        raise HttpError(503, "Kafka refuses the events: see the gateway's log", (RETRY_AFTER,)) from error


def _receipt(intake: Intake, refusal: int = 200) -> Response:
    """What is answered, with the status `refusal` if anything was refused."""
    success = not intake.refused_count
    receipt = Receipt(success, intake.accepted_count, intake.shown, intake.refused_count)
    return Response(200 if success else refusal, encode(receipt))


def read_json(decode: Callable[[bytes], T], raw: bytes) -> T:
    """A body's value.

    Raises:
        HttpError: 400, it is not JSON of that shape.
    """
    try:
        return decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HttpError(400, f"expected a JSON body, got one that cannot be read: {error}") from error
    except RecursionError:
        raise HttpError(400, "expected a JSON body, got one nested too deeply to be read") from None
