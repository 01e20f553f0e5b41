"""Rules an Event must keep whatever its tenant: sizes, characters, depth, its Kafka key, its time."""

from datetime import UTC, datetime, timedelta
from typing import Final

from eventstore.events.envelope import NO_CONTEXT, Event, Sent, record_key
from eventstore.events.reject import Reason, Rejected

MAX_UID_BYTES = 256
MAX_EVENT_NAME_BYTES = 128
MAX_MESSAGE_ID_BYTES = 100
MAX_DEPTH = 32
"""Deepest nesting of `properties` and `context`: readers parse what we store, so it must not break their parsers."""
MAX_CONTAINERS = 4_096
"""Most objects and arrays in either: ten thousand empty ones fit into an event, and cost every parser a millisecond."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
_AS_ARRAYS: Final = bytes.maketrans(b"{}", b"[]")
_NO_MARKS: Final = bytes(byte for byte in range(256) if byte not in b'{}[]"')
"""Neither brackets nor quotes."""
_FEW: Final = 500
"""Innermost brackets that are looked at one by one."""
_SHOWN_BYTES: Final = 400
"""Of a wrong key, which Kafka lets be a megabyte: longer than any right one."""


def check_limits(event: Event) -> Rejected | None:
    """Sizes and shapes. Lengths are in UTF-8 bytes."""
    return (
        check_uid(event.uid)
        or check_text("event", event.event, MAX_EVENT_NAME_BYTES)
        or (check_text("message_id", event.message_id, MAX_MESSAGE_ID_BYTES) if event.message_id else None)
        or (check_object("properties", bytes(event.properties)) if event.properties is not NO_CONTEXT else None)
        or (check_object("context", bytes(event.context)) if event.context is not NO_CONTEXT else None)
    )


def check_uid(uid: str) -> Rejected | None:
    return check_text("uid", uid, MAX_UID_BYTES)


def check_text(name: str, text: str, most: int) -> Rejected | None:
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
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
        return _check_shape(name, shape(raw))
    return None


def _check_shape(name: str, brackets: bytes) -> Rejected | None:
    if (containers := len(brackets) // 2) > MAX_CONTAINERS:
        return Rejected(Reason.LIMIT, f"{name}: expected at most {MAX_CONTAINERS} objects and arrays, got {containers}")
    if (depth := nesting(brackets)) > MAX_DEPTH:
        return Rejected(Reason.LIMIT, f"{name}: expected at most {MAX_DEPTH} levels of nesting, got {depth}")
    return None


def shape(raw: bytes) -> bytes:
    """Valid JSON without all but the brackets of its objects and arrays, and these all alike."""
    if b"\\" in raw:  # only strings hold any
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = raw.translate(_AS_ARRAYS, _NO_MARKS).replace(b'""', b"")
    return b"".join(marks.split(b'"')[::2])  # every second piece is inside a string


def nesting(brackets: bytes) -> int:
    """The deepest nesting. Nearly all of the work is done at C's speed, because hostile bytes can be all brackets."""
    taken_off = 0
    while brackets.count(b"[]") > _FEW:  # a whole level at once
        brackets = brackets.replace(b"[]", b"")
        taken_off += 1
    return taken_off + _deepest(brackets.split(b"[]"))


def _deepest(between: list[bytes]) -> int:
    """The deepest of the empty arrays between these runs of closing and then opening brackets."""
    level = deepest = 0
    for run in between[:-1]:
        level += 2 * run.count(b"[") - len(run)
        deepest = max(deepest, level + 1)
    return deepest


def check_key(sent: Sent, key: bytes | None) -> Rejected | None:
    """The Kafka key must be `tenant:uid`: it decides the partition, and a wrong one would slip past a tenant's ACL."""
    expected = record_key(sent)
    if key == expected:
        return None
    return Rejected(Reason.KEY_MISMATCH, f"expected the key {expected.decode()!r}, got {_shown(key)}")


def _shown(key: bytes | None) -> str:
    if key is None:
        return "no key"
    start = key[:_SHOWN_BYTES]
    try:
        return repr(start.decode())
    except UnicodeDecodeError:
        return repr(start)


def micros_of(moment: datetime) -> int:
    """Microseconds since the epoch.

    Raises:
        TypeError: the moment has no zone.
    """
    return (moment - EPOCH) // MICROSECOND


def event_micros(event: Event, now_micros: int, max_future_micros: int) -> int | Rejected:
    """Event time in microseconds since the epoch, checked against the clock that is passed in."""
    return check_time(event.timestamp, now_micros, max_future_micros)


def check_time(stamp: int | datetime, now_micros: int, max_future_micros: int) -> int | Rejected:
    """A time as producers write it, in microseconds since the epoch, checked against the clock that is passed in."""
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
