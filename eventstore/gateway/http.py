"""The little HTTP that handlers see: a request whose body is bounded in size and time, and three kinds of answers."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from eventstore.tenancy import Tenant

encode: Final = msgspec.json.Encoder().encode

JSON: Final = ("content-type", "application/json")
NDJSON: Final = ("content-type", "application/x-ndjson")
EVENT_STREAM: Final = ("content-type", "text/event-stream")
HTML: Final = ("content-type", "text/html; charset=utf-8")

MAX_QUERY_BYTES: Final = 64 * 1024
MAX_QUERY_FIELDS: Final = 1_000
MAX_BODY_BYTES: Final = 256 * 2**20
MAX_BLANK_LINES: Final = 100_000
"""Of a stream: they cost no token, so a body of nothing else has to have an end."""
STEP: Final = 256 * 1024
"""Unpacked bytes that are looked at together."""
LINGER_BYTES: Final = 16 * 2**20
"""Of a body that is too large: more than that is not worth a polite answer."""
GZIP: Final = 16 + zlib.MAX_WBITS

Header = tuple[str, str]


Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
"""ASGI's: the next part of the body, or word that the sender has gone."""


class Headers:
    """A request's headers, by their names in small letters. Of a name that came twice the first value counts."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[bytes, bytes] = {}
        for name, value in pairs:
            self._values.setdefault(name, value)

    def __contains__(self, name: str) -> bool:
        return name.encode() in self._values

    def get(self, name: str) -> str | None:
        """The value of a header."""
        value = self._values.get(name.encode())
        return None if value is None else value.decode("latin-1")


@dataclass(slots=True)
class BodyBytes:
    """How many bytes of bodies are held at a time, over all requests: each is bounded, and so are all together."""

    most: int
    held: int = 0

    def hold(self, count: int) -> None:
        """Raises HttpError: 503, there are too many."""
        if self.held + count > self.most:
            raise HttpError(503, "too much is being posted at a time: try again", (("retry-after", "1"),))
        self.held += count

    def release(self, count: int) -> None:
        self.held -= count


class HttpError(Exception):
    """A request that is answered with an error: what was expected, what came, and the mend."""

    def __init__(self, status: int, detail: str, headers: tuple[Header, ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers

    def response(self) -> "Response":
        return Response(self.status, encode({"error": REASONS.get(self.status, "error"), "detail": self.detail}),
                        (JSON, *self.headers))  # fmt: skip


REASONS: Final[Mapping[int, str]] = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
    431: "too_large",
    500: "internal",
    503: "unavailable",
    504: "timeout",
}


@dataclass(frozen=True, slots=True)
class Response:
    """An answer that is there as a whole."""

    status: int
    body: bytes = b""
    headers: tuple[Header, ...] = (JSON,)


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer that is sent as it comes. An error after the first part ends the connection, so that it cannot pass for whole."""

    parts: AsyncIterator[bytes]
    headers: tuple[Header, ...]
    status: int = 200
    lasting: bool = False
    """A feed without an end of its own: its route bounds how many there are, so it takes no place among open requests."""


@dataclass(slots=True)
class Request:
    """One request, once its route is known and its sender may use it."""

    method: str
    path: str
    query_string: str
    headers: Headers
    receive: Receive
    body_seconds: float
    received_micros: int
    params: Mapping[str, str] = field(default_factory=dict)
    """What the path's placeholders stand for, decoded."""
    tenant: Tenant | None = None
    """Whose key it came with; None where a route asks for none, or takes it from the body."""
    bodies: BodyBytes = field(default_factory=lambda: BodyBytes(MAX_BODY_BYTES))
    held: int = 0
    """Of `bodies`, until the answer has been sent."""

    def query(self) -> dict[str, str]:
        """The query's fields, each at most once.

        Raises:
            HttpError: it is too long, not UTF-8, or names a field twice.
        """
        if len(self.query_string) > MAX_QUERY_BYTES:
            raise HttpError(400, f"query: expected at most {MAX_QUERY_BYTES} characters, got {len(self.query_string)}")
        try:
            pairs = parse_qsl(
                self.query_string, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS
            )
        except ValueError as error:
            raise HttpError(400, f"query: expected fields of percent-encoded UTF-8, got {error}") from error
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise HttpError(400, "query: expected each field once; join values with commas where several may be named")
        return fields

    async def body(self, most: int) -> bytes:
        """The whole body, unpacked if it came as gzip: never more than `most` bytes, never later than the body may take.

        Raises:
            HttpError: too large, too slow, or not what its headers say.
        """
        packed, length = self._packed(), self._length()
        try:
            async with asyncio.timeout(self.body_seconds):
                if length is not None and length > most:
                    await self._let_pass()
                    raise self._too_large(most)
                received = await self._whole(most, length)
        except TimeoutError:
            raise HttpError(408, f"expected the whole body within {self.body_seconds:g} s") from None
        return b"".join(self._unpacked(received, most)) if packed else received

    async def lines(self, longest: int, at_once: int) -> AsyncIterator[list[bytes]]:
        """The body's lines as they come, empty ones left out, so many at once: a body of any length needs little memory.

        Raises:
            HttpError: a line longer than `longest` bytes, too slow, or not what the headers say.
        """
        unpacker = Unpacker() if self._packed() else None
        rest, lines, blank = b"", [], 0
        async for part in self._timely():
            for plain in (part,) if unpacker is None else unpacker.feed(part):
                *whole, rest = (rest + plain).split(b"\n")
                told = [line for line in whole if line.strip()]
                lines += told
                blank += len(whole) - len(told)
                if len(rest) > longest:
                    raise HttpError(413, f"expected lines of at most {longest} bytes")
                if blank > MAX_BLANK_LINES:
                    raise HttpError(400, f"expected events, got more than {MAX_BLANK_LINES} empty lines")
                while len(lines) >= at_once:
                    yield lines[:at_once]
                    lines = lines[at_once:]
                await asyncio.sleep(0)  # others' requests have their turn, however much a part unpacks to
        if unpacker is not None:
            unpacker.finish()
        if lines := [*lines, *([rest] if rest.strip() else [])]:
            yield lines

    async def _part(self) -> tuple[bytes, bool]:
        """The next part of the body, and whether more may follow.

        Raises:
            HttpError: 400, the sender has gone before the body's end: half an event must not pass for a whole one.
        """
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise HttpError(400, "expected the whole body, the connection ended before")
        return message.get("body", b""), message.get("more_body", False)

    async def _whole(self, most: int, length: int | None) -> bytes:
        parts, size, more = [], 0, True
        while more and size != length:  # at its length it ends: word that nothing follows would be one more wait
            part, more = await self._part()
            size += len(part)
            if size > most:
                raise self._too_large(most)
            self._hold(len(part))
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _timely(self) -> AsyncIterator[bytes]:
        """The body's parts, each within the time that a whole one may take."""
        more = True
        while more:
            try:
                async with asyncio.timeout(self.body_seconds):
                    part, more = await self._part()
            except TimeoutError:
                raise HttpError(408, f"expected more of the body within {self.body_seconds:g} s") from None
            yield part

    async def _let_pass(self) -> None:
        """Take in what a client sends before it looks at an answer: told too early, it would only see a broken connection."""
        passed, more = 0, True
        while more and passed <= LINGER_BYTES:
            part, more = await self._part()
            passed += len(part)

    def _unpacked(self, packed: bytes, most: int) -> Iterator[bytes]:
        """What gzip packed; unpacking stops at `most` bytes, however small the packed bytes were."""
        unpacker, size = Unpacker(), 0
        for plain in unpacker.feed(packed):
            size += len(plain)
            if size > most:
                raise HttpError(413, f"expected at most {most} bytes once unpacked; send it in parts")
            self._hold(len(plain))
            yield plain
        unpacker.finish()

    def _hold(self, count: int) -> None:
        self.bodies.hold(count)
        self.held += count

    def _packed(self) -> bool:
        coding = (self.headers.get("content-encoding") or "identity").strip().lower()
        if coding not in ("identity", "gzip"):
            raise HttpError(415, f"content-encoding: expected gzip or none, got {coding!r}")
        return coding == "gzip"

    def _length(self) -> int | None:
        told = self.headers.get("content-length")
        return int(told) if told is not None and told.isascii() and told.isdecimal() else None

    @staticmethod
    def _too_large(most: int) -> HttpError:
        return HttpError(413, f"expected a body of at most {most} bytes; send it in parts")


class Unpacker:
    """Undoes gzip, step by step: one member, or several behind each other, which is as good (RFC 1952)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(GZIP)
        self._begun = False

    def feed(self, packed: bytes) -> Iterator[bytes]:
        """What a part unpacks to, `STEP` bytes at a time.

        Raises:
            HttpError: 400, it is not gzip.
        """
        while packed:
            if self._member.eof:
                self._member = zlib.decompressobj(GZIP)
            self._begun = True
            try:
                plain = self._member.decompress(packed, STEP)
            except zlib.error as error:
                raise HttpError(400, f"expected a gzip body, got one that cannot be unpacked: {error}") from error
            packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            yield plain

    def finish(self) -> None:
        """Raises HttpError: 400, the last member has been cut short."""
        if not self._begun or not self._member.eof:
            raise HttpError(400, "expected whole gzip members, got one cut short")
