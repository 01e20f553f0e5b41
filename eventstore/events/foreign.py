"""Records of other shapes, mapped to our envelope by dotted paths and constants.

A path names a field: `user`, or `actor.login` for the field `login` of the object in the field `actor`; a field whose
own name has dots in it is found first. What is not mapped becomes `properties`, as the bytes it came in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from eventstore.events.envelope import NO_CONTEXT, Event, encode
from eventstore.events.reject import Reason, Rejected
from eventstore.events.validate import EPOCH, MICROSECOND

MAX_SECONDS: Final = 10**11
"""Smaller numbers are seconds since the epoch (up to the year 5138) ..."""
MAX_MILLIS: Final = 10**14
"""... smaller ones than this are milliseconds, the others microseconds."""

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value = msgspec.json.Decoder().decode
_time = msgspec.json.Decoder(datetime).decode


@dataclass(frozen=True, slots=True)
class Constant:
    """The same text for every record."""

    text: str


@dataclass(frozen=True, slots=True)
class EnvelopeMapping:
    """Where each field of the envelope comes from; a `str` is a path."""

    tenant: str | Constant = "tenant"
    uid: str | Constant = "uid"
    event: str | Constant = "event"
    timestamp: str = "timestamp"
    message_id: str = "message_id"
    properties: str | None = None
    """An object; None for everything that is not mapped. (A field taken out of an object leaves that object whole.)"""
    tenant_strip: str = ""
    """Characters taken off both ends of the tenant: `#` makes `en.wikipedia` of `#en.wikipedia`."""

    def event_of(self, record: bytes) -> Event | Rejected:
        """The record as an Event whose limits have not been checked. Never raises, whatever the bytes are."""
        try:
            return self._event(_fields(record))
        except _RefusedError as refused:
            return refused.rejected
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Rejected(Reason.MALFORMED, str(error))
        except RecursionError:
            return Rejected(Reason.MALFORMED, "nested too deeply to be read")

    def _event(self, fields: dict[str, msgspec.Raw]) -> Event:
        message_id = find(fields, self.message_id)
        return Event(
            tenant=_text(fields, "tenant", self.tenant).strip(self.tenant_strip),
            uid=_text(fields, "uid", self.uid),
            event=_text(fields, "event", self.event),
            timestamp=_timestamp(fields, self.timestamp),
            message_id=None if message_id is None else _text_of("message_id", self.message_id, message_id),
            properties=self._properties(fields),
        )

    def _properties(self, fields: dict[str, msgspec.Raw]) -> msgspec.Raw:
        if self.properties:
            return find(fields, self.properties) or NO_CONTEXT
        taken = {self.tenant, self.uid, self.event, self.timestamp, self.message_id}
        return msgspec.Raw(encode({name: raw for name, raw in fields.items() if name not in taken}))


class _RefusedError(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        self.rejected = Rejected(reason, detail)


def find(fields: Mapping[str, msgspec.Raw], path: str) -> msgspec.Raw | None:
    """What stands at a path; None if nothing does, or null."""
    if (raw := fields.get(path)) is not None:
        return None if bytes(raw) == b"null" else raw
    head, dot, rest = path.partition(".")
    inner = fields.get(head) if dot else None
    return find(_fields(inner), rest) if inner is not None and bytes(inner).startswith(b"{") else None


def _text(fields: Mapping[str, msgspec.Raw], name: str, source: str | Constant) -> str:
    if isinstance(source, Constant):
        return source.text
    if (raw := find(fields, source)) is None:
        raise _RefusedError(Reason.MALFORMED, f"{name}: expected text or a whole number at `{source}`, found none")
    return _text_of(name, source, raw)


def _text_of(name: str, path: str, raw: msgspec.Raw) -> str:
    value: Any = _value(raw)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _RefusedError(Reason.MALFORMED, f"{name}: expected text or a whole number at `{path}`, got {_shown(raw)}")


def _timestamp(fields: Mapping[str, msgspec.Raw], path: str) -> int | datetime:
    if (raw := find(fields, path)) is None:
        raise _RefusedError(Reason.TIMESTAMP, f"timestamp: expected a time at `{path}`, found none")
    if not bytes(raw).startswith(b'"'):
        return at_micros(_micros_of_number(_value(raw), path, raw))
    try:
        stamp = _time(raw)
    except msgspec.DecodeError:
        stamp = None
    if stamp is None or stamp.tzinfo is None:
        raise _RefusedError(
            Reason.TIMESTAMP, f"timestamp: expected RFC 3339 with a zone at `{path}`, got {_shown(raw)}"
        )
    return at_micros((stamp - EPOCH) // MICROSECOND)


def _micros_of_number(number: Any, path: str, raw: msgspec.Raw) -> int:
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < MAX_MILLIS * 1_000:
        raise _RefusedError(
            Reason.TIMESTAMP, f"timestamp: expected RFC 3339 or a number since 1970 at `{path}`, got {_shown(raw)}"
        )
    if number < MAX_SECONDS:
        return round(number * 1_000_000)
    return round(number * 1_000) if number < MAX_MILLIS else round(number)


def at_micros(micros: int) -> int | datetime:
    """An envelope's timestamp: whole milliseconds as a number, which is cheapest to read, finer ones as RFC 3339."""
    millis, rest = divmod(micros, 1_000)
    return EPOCH + timedelta(microseconds=micros) if rest else millis


def _shown(raw: msgspec.Raw) -> str:
    return bytes(raw)[:40].decode(errors="backslashreplace")
