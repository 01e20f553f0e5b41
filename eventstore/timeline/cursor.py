"""Where a page ended, as text that a caller hands back for the next one.

A cursor holds the last row's position, so it stays good while events arrive: newer ones sort before it and never shift a
page. It holds the range's start as well: "the last 30 days" of a second page are those of the first. The digest binds it
to tenant, user and filter; it tells mistakes, not attacks: the caller names the tenant anew with every call, and a forged
cursor reads nothing that the call itself may not read.
"""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final
from uuid import UUID

from eventstore.errors import CursorError
from eventstore.events.stored import Position
from eventstore.timeline.plan import TimelineQuery

VERSION: Final = 1
_BODY: Final = struct.Struct(">Bqq16s")
_DIGEST_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Cursor:
    start_ms: int | None
    """The start of the range that the first page was asked for; None: the whole retention."""
    last: Position
    """The last row handed out."""


def encode(cursor: Cursor, query: TimelineQuery) -> str:
    """The cursor as URL-safe text, good for this tenant, user and filter only."""
    start = -1 if cursor.start_ms is None else cursor.start_ms
    body = _BODY.pack(VERSION, start, cursor.last.timestamp_ms, cursor.last.eid.bytes)
    return seal(body, _question(query))


def decode(text: str, query: TimelineQuery) -> Cursor:
    """The cursor that `encode` gave for the same tenant, user and filter.

    Raises:
        CursorError: the text is no cursor, was changed, or belongs to another question.
    """
    body = unseal(text, VERSION, _question(query))
    if len(body) != _BODY.size:
        raise no_cursor(text)
    _, start, timestamp, eid = _BODY.unpack(body)
    return Cursor(None if start < 0 else start, Position(timestamp, UUID(bytes=eid)))


def seal(body: bytes, question: Iterable[str]) -> str:
    """A cursor's text; `body` begins with a byte that tells its kind and version."""
    return _text(body + _digest(body, question))


def unseal(text: str, kind: int, question: Iterable[str]) -> bytes:
    """The body that was sealed for the same question.

    Raises:
        CursorError: the text is no cursor of this kind, was changed, or belongs to another question.
    """
    raw = _bytes(text)
    body, digest = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
    if not body or body[0] != kind:
        raise no_cursor(text)
    if digest != _digest(body, question):
        raise CursorError(
            "cursor: expected one of the same tenant, user and filter, got one of another question or a changed one;"
            " start at the first page"
        )
    return body


def no_cursor(text: str) -> CursorError:
    return CursorError(f"cursor: expected one that this version gave out, got {text[:80]!r}; start at the first page")


def _question(query: TimelineQuery) -> list[str]:
    return [query.tenant, query.uid, *([query.event] if query.event is not None else [])]


def _bytes(text: str) -> bytes:
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:  # not ASCII, or not base64
        return b""
    return raw if _text(raw) == text else b""  # Python's decoder skips what is not base64: only the exact text counts


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _digest(body: bytes, question: Iterable[str]) -> bytes:
    digest = blake2b(body, digest_size=_DIGEST_BYTES, person=b"timeline cursor")
    for part in question:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.digest()
