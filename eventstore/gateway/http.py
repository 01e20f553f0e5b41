"""The little HTTP that handlers see: a request whose body is bounded in size and time, and three kinds of answers."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
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
LINGER_BYTES: Final = 16 * 2**20
"""Of a body that is too large: more than that is not worth a polite answer."""
GZIP: Final = 16 + zlib.MAX_WBITS

Header = tuple[str, str]


class Headers(Protocol):
    """A request's headers, by their names in small letters."""

    def __contains__(self, key: str) -> bool: ...

    def get(self, key: str, default: str | None = None) -> str | None:
        """The value of a header."""
        ...


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
    stream: Any
    """RSGI's protocol: called it gives the body, iterated its parts."""
    body_seconds: float
    received_micros: int
    client: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    """What the path's placeholders stand for, decoded."""
    tenant: Tenant | None = None
    """Whose key it came with; None where a route asks for none, or takes it from the body."""

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
        packed = self._packed()
        length = self._length()
        try:
            async with asyncio.timeout(self.body_seconds):
                if length is None:
                    received = await self._parts(most)
                elif length <= most:
                    received = await self.stream()
                else:
                    received = await self._let_pass()
        except TimeoutError:
            raise HttpError(408, f"expected the whole body within {self.body_seconds:g} s") from None
        except HttpError:
            raise
        except Exception as error:  # RSGI's own, when the sender goes away in the middle
            raise HttpError(400, "expected the whole body, the connection ended before") from error
        if (length or len(received)) > most:
            raise self._too_large(most)
        return unpacked(received, most) if packed else received

    async def lines(self, longest: int, at_once: int) -> AsyncIterator[list[bytes]]:
        """The body's lines as they come, empty ones left out, so many at once: a body of any length needs little memory.

        Raises:
            HttpError: a line longer than `longest` bytes, too slow, or not what the headers say.
        """
        unpacker = zlib.decompressobj(GZIP) if self._packed() else None
        rest, lines = b"", []
        async for part in self._timely():
            packed = part
            while packed:
                plain = packed if unpacker is None else unpacker_step(unpacker, packed)
                packed = b"" if unpacker is None else unpacker.unconsumed_tail
                *whole, rest = (rest + plain).split(b"\n")
                lines += [line for line in whole if line.strip()]
                if len(rest) > longest:
                    raise HttpError(413, f"expected lines of at most {longest} bytes")
                while len(lines) >= at_once:
                    yield lines[:at_once]
                    lines = lines[at_once:]
        if unpacker is not None and not unpacker.eof:
            raise HttpError(400, "expected one whole gzip member, got one cut short")
        if lines := [*lines, *([rest] if rest.strip() else [])]:
            yield lines

    async def _timely(self) -> AsyncIterator[bytes]:
        """The body's parts, each within the time that a whole one may take."""
        parts = aiter(self.stream)
        while True:
            try:
                async with asyncio.timeout(self.body_seconds):
                    part = await anext(parts)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise HttpError(408, f"expected more of the body within {self.body_seconds:g} s") from None
            except Exception as error:
                raise HttpError(400, "expected the whole body, the connection ended before") from error
            yield bytes(part)

    async def _let_pass(self) -> bytes:
        """Take in what a client sends before it looks at an answer: told too early, it would only see a broken connection."""
        passed = 0
        async for part in self.stream:
            passed += len(part)
            if passed > LINGER_BYTES:
                break
        return b""

    async def _parts(self, most: int) -> bytes:
        """A body whose length nobody has told."""
        parts, size = [], 0
        async for part in self.stream:
            size += len(part)
            if size > most:
                raise self._too_large(most)
            parts.append(bytes(part))
        return b"".join(parts)

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


STEP: Final = 256 * 1024
"""Unpacked bytes of a stream that are looked at together."""


def unpacker_step(unpacker: Any, packed: bytes) -> bytes:
    try:
        plain: bytes = unpacker.decompress(packed, STEP)
    except zlib.error as error:
        raise HttpError(400, f"expected a gzip body, got one that cannot be unpacked: {error}") from error
    return plain


def unpacked(packed: bytes, most: int) -> bytes:
    """What gzip packed; unpacking stops at `most` bytes, however small the packed bytes were.

    Raises:
        HttpError: larger, or not one whole gzip member.
    """
    unpacker = zlib.decompressobj(GZIP)
    try:
        whole = unpacker.decompress(packed, most + 1)
    except zlib.error as error:
        raise HttpError(400, f"expected a gzip body, got one that cannot be unpacked: {error}") from error
    if len(whole) > most:
        raise HttpError(413, f"expected at most {most} bytes once unpacked; send it in parts")
    if not unpacker.eof or unpacker.unused_data:
        raise HttpError(400, "expected one whole gzip member, got one cut short or with more behind it")
    return whole
