"""Row identity: the same record always makes the same row, whoever writes it and however often."""

from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

UUID_TEXT_LENGTH = 36
EID_BYTES = 16


class Coordinates(NamedTuple):
    """Where a record stands, or first stood, in Kafka."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def event_id(tenant: str, message_id: str | None, origin: Callable[[], Coordinates]) -> bytes:
    """The 16 bytes of an event's `eid`. `origin` is asked only for an event without a message id.

    The producer's `message_id` itself if it is a UUID in canonical form (either case), else a hash of tenant and
    `message_id`, else, where the producer gave none, a hash of the record's coordinates.
    """
    if message_id:
        return uuid_bytes(message_id) or _hashed(b"message", tenant, message_id)
    return _hashed(b"coordinates", *map(str, origin()))


def uuid_bytes(text: str) -> bytes | None:
    """The bytes of a UUID written 8-4-4-4-12, else None: braces, `urn:` and bare hex are other texts, not UUIDs."""
    if len(text) != UUID_TEXT_LENGTH or text[8:24:5] != "----":
        return None
    digits = text.replace("-", "")
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        return None
    # fromhex skips white space: only 32 digits make 16 bytes
    return raw if len(raw) == EID_BYTES and len(digits) == 2 * EID_BYTES else None


def derived_message_id(record: bytes, position: int) -> str:
    """A `message_id` for a record whose source gives none: the same for the same bytes at the same place of a file."""
    digits = _hashed(b"record", str(position), record).hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _hashed(kind: bytes, *parts: str | bytes) -> bytes:
    """A version 8 UUID (RFC 9562, section 5.8) of 122 hashed bits; lengths keep ("a", "bc") and ("ab", "c") apart."""
    digest = blake2b(digest_size=16, person=kind)
    for part in parts:
        encoded = part if isinstance(part, bytes) else part.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    raw = bytearray(digest.digest())
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)
