"""Rules an Event must keep whatever its tenant: sizes, characters, depth, its Kafka key, its time."""

import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from eventstore.events.envelope import NO_CONTEXT, Event, record_key
from eventstore.events.reject import Reason, Rejected

MAX_UID_BYTES = 256
MAX_EVENT_NAME_BYTES = 128
MAX_MESSAGE_ID_BYTES = 100
MAX_DEPTH = 32
"""Deepest nesting of `properties` and `context`: readers parse what we store, so it must not break their parsers."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
_NOT_BRACKETS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[^][{}"]++', re.DOTALL)
"""Strings, and whatever else is not a bracket."""


def check_limits(event: Event) -> Rejected | None:
    """Sizes and shapes. Lengths are in UTF-8 bytes."""
    return (
        _check_text("uid", event.uid, MAX_UID_BYTES)
        or _check_text("event", event.event, MAX_EVENT_NAME_BYTES)
        or (_check_text("message_id", event.message_id, MAX_MESSAGE_ID_BYTES) if event.message_id else None)
        or (check_object("properties", bytes(event.properties)) if event.properties is not NO_CONTEXT else None)
        or (check_object("context", bytes(event.context)) if event.context is not NO_CONTEXT else None)
    )


def _check_text(name: str, text: str, most: int) -> Rejected | None:
    size = len(text) if text.isascii() else len(text.encode())
    if not 0 < size <= most:
        return Rejected(Reason.LIMIT, f"{name}: expected 1 to {most} bytes, got {size}")
    if "\0" in text:
        return Rejected(Reason.LIMIT, f"{name}: expected text without NUL characters")
    return None


def check_object(name: str, raw: bytes) -> Rejected | None:
    if not raw.startswith(b"{"):
        return Rejected(Reason.LIMIT, f"{name}: expected a JSON object, got {raw[:20]!r}")
    if not raw.isascii():
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            return Rejected(Reason.MALFORMED, f"{name}: expected UTF-8, got {error.reason} at byte {error.start}")
    # brackets inside strings count here, so only the rare suspect is measured exactly
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and (depth := nesting(raw)) > MAX_DEPTH:
        return Rejected(Reason.LIMIT, f"{name}: expected at most {MAX_DEPTH} levels of nesting, got {depth}")
    return None


def nesting(raw: bytes) -> int:
    """The deepest nesting of objects and arrays in valid JSON."""
    steps = (1 if bracket in b"{[" else -1 for bracket in _NOT_BRACKETS.sub(b"", raw))
    return max(itertools.accumulate(steps), default=0)


def check_key(event: Event, key: bytes | None) -> Rejected | None:
    """The Kafka key must be `tenant:uid`: it decides the partition, and a wrong one would slip past a tenant's ACL."""
    expected = record_key(event)
    if key == expected:
        return None
    shown = "no key" if key is None else repr(key.decode(errors="backslashreplace"))
    return Rejected(Reason.KEY_MISMATCH, f"expected the key {expected.decode()!r}, got {shown}")


def micros_of(moment: datetime) -> int:
    """Microseconds since the epoch.

    Raises:
        TypeError: the moment has no zone.
    """
    return (moment - EPOCH) // MICROSECOND


def event_micros(event: Event, now_micros: int, max_future_micros: int) -> int | Rejected:
    """Event time in microseconds since the epoch, checked against the clock that is passed in."""
    stamp = event.timestamp
    if isinstance(stamp, datetime):
        if stamp.tzinfo is None:
            return Rejected(Reason.TIMESTAMP, f"expected RFC 3339 with a zone, got {stamp.isoformat()}")
        micros = micros_of(stamp)
    else:
        micros = stamp * 1_000
    if micros < 0:
        return Rejected(Reason.TIMESTAMP, f"expected a time since 1970, got {stamp}")
    if micros > now_micros + max_future_micros:
        ahead = (micros - now_micros) // 1_000_000
        return Rejected(
            Reason.TIMESTAMP,
            f"expected at most {max_future_micros // 1_000_000} s in the future, got {ahead} s ({stamp})",
        )
    return micros
