"""Calls of the Segment HTTP API as events, so that its official SDKs can publish here with nothing changed but their host.

Sizes, names, the six calls and the clock correction are those of Segment's public HTTP tracking API and common fields.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from eventstore.events.envelope import NO_CONTEXT, Event
from eventstore.events.foreign import at_micros
from eventstore.events.identity import derived_message_id
from eventstore.events.reject import Reason, Rejected
from eventstore.events.validate import micros_of

CALLS: Final = ("track", "identify", "page", "screen", "group", "alias")
MAX_CALL_BYTES: Final = 32 * 1024
MAX_BATCH_BYTES: Final = 500 * 1024
LATENCY_MICROS: Final = 5_000_000
"""A clock that is off by less is taken for right, and the difference for the time the request took. Each retry of a request
takes another time: corrected by it, the retried event would be another row."""

END_MICROS: Final = 253_402_300_800_000_000
"""The year 10000."""

_NULL: Final = b"null"
_EMPTY: Final = msgspec.Raw(b"{}")
_text = msgspec.json.Encoder().encode


class Call(msgspec.Struct, gc=False):
    """What is read of a call; other fields (`integrations`, `channel`, `_metadata` …) are the sender's own business."""

    type: str | None = None
    event: str | None = None
    userId: str | int | None = None  # noqa: N815 — Segment's spelling, here and below
    anonymousId: str | int | None = None  # noqa: N815
    messageId: str | None = None  # noqa: N815
    timestamp: datetime | int | None = None
    originalTimestamp: datetime | int | None = None  # noqa: N815
    sentAt: datetime | int | None = None  # noqa: N815
    properties: msgspec.Raw = _EMPTY
    traits: msgspec.Raw = _EMPTY
    context: msgspec.Raw = _EMPTY
    name: str | None = None
    category: str | None = None
    groupId: str | int | None = None  # noqa: N815
    previousId: str | int | None = None  # noqa: N815


class Delivery(msgspec.Struct, frozen=True):
    """What is known of the request that a call came with."""

    tenant: str
    received_micros: int
    sent_at: datetime | int | None = None
    """Of the whole batch; a call's own wins."""
    context: msgspec.Raw = _EMPTY
    """Of the whole batch, for calls without one."""
    kind: str | None = None
    """The call that the path names; None where each call says its own `type`."""


_call = msgspec.json.Decoder(Call).decode


def event_of(raw: bytes, position: int, delivery: Delivery) -> Event | Rejected:
    """A call as an event whose limits have not been checked. Never raises, whatever the bytes are.

    Args:
        raw: the call, a JSON object.
        position: its place in its batch: part of the `message_id` that a call without one gets.
        delivery: the request it came with.
    """
    if len(raw) > MAX_CALL_BYTES:
        return Rejected(Reason.TOO_LARGE, f"expected at most {MAX_CALL_BYTES} bytes, got {len(raw)}")
    try:
        return _event(_call(raw), raw, position, delivery)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Rejected(Reason.MALFORMED, str(error))
    except RecursionError:
        return Rejected(Reason.MALFORMED, "nested too deeply to be read")


def _event(call: Call, raw: bytes, position: int, delivery: Delivery) -> Event | Rejected:
    kind = delivery.kind or call.type
    if (named := _NAMES.get(kind or "")) is None:
        return Rejected(Reason.MALFORMED, f"type: expected one of {', '.join(CALLS)}, got {kind!r}")
    uid = call.anonymousId if call.userId in (None, "") else call.userId
    if uid is None:
        return Rejected(Reason.MALFORMED, "expected userId or anonymousId, got neither")
    micros = _micros(call, delivery)
    if isinstance(micros, Rejected):
        return micros
    event = named(call)
    if isinstance(event, Rejected):
        return event
    name, properties = event
    return Event(
        tenant=delivery.tenant,
        uid=str(uid),
        event=name,
        message_id=call.messageId or derived_message_id(raw, position),
        timestamp=at_micros(micros),
        properties=properties,
        context=_context(call, delivery),
    )


def _track(call: Call) -> tuple[str, msgspec.Raw] | Rejected:
    if not call.event:
        return Rejected(Reason.MALFORMED, "event: expected the name of what was tracked, got none")
    return call.event, _object(call.properties)


def _identify(call: Call) -> tuple[str, msgspec.Raw]:
    return "identify", _object(call.traits)


def _page(call: Call) -> tuple[str, msgspec.Raw]:
    return "page", with_fields(call.properties, {"name": call.name, "category": call.category})


def _screen(call: Call) -> tuple[str, msgspec.Raw]:
    return "screen", with_fields(call.properties, {"name": call.name, "category": call.category})


def _group(call: Call) -> tuple[str, msgspec.Raw] | Rejected:
    if call.groupId is None:
        return Rejected(Reason.MALFORMED, "groupId: expected the group that the user is in, got none")
    return "group", with_fields(call.traits, {"groupId": call.groupId})


def _alias(call: Call) -> tuple[str, msgspec.Raw] | Rejected:
    if call.previousId is None:
        return Rejected(Reason.MALFORMED, "previousId: expected who the user was before, got none")
    return "alias", with_fields(_EMPTY, {"previousId": call.previousId})


_NAMES: Final[Mapping[str, Callable[[Call], tuple[str, msgspec.Raw] | Rejected]]] = {
    "track": _track,
    "identify": _identify,
    "page": _page,
    "screen": _screen,
    "group": _group,
    "alias": _alias,
}


def _context(call: Call, delivery: Delivery) -> msgspec.Raw:
    """The context; a visitor who is known by now is still found under the id of before."""
    context = delivery.context if call.context is _EMPTY else call.context
    if call.userId in (None, "") or call.anonymousId is None:
        return _object(context)
    return with_fields(context, {"anonymousId": call.anonymousId})


def _object(raw: msgspec.Raw) -> msgspec.Raw:
    return NO_CONTEXT if raw is _EMPTY or bytes(raw) in (_NULL, b"{}") else raw


def with_fields(raw: msgspec.Raw, fields: Mapping[str, str | int | None]) -> msgspec.Raw:
    """A JSON object with these fields before its own; one that it may hold already is left out, as is None.

    The object is not parsed: a name that stands anywhere in it, if only in a nested object, counts as held. What is not
    an object is given back as it is, to be refused later on.
    """
    encoded = bytes(_object(raw)).strip()
    if not encoded.startswith(b"{"):
        return raw
    added = [_text(name) + b":" + _text(value) for name, value in fields.items()
             if value is not None and _text(name) not in encoded]  # fmt: skip
    if not added:
        return _object(raw)
    rest = encoded[1:].lstrip()
    return msgspec.Raw(b"{" + b",".join(added) + (b"" if rest.startswith(b"}") else b",") + rest)


def _micros(call: Call, delivery: Delivery) -> int | Rejected:
    """Event time by Segment's formula: when it was received, less what had passed on the sender's clock until it was sent."""
    original = _moment(call.originalTimestamp if call.originalTimestamp is not None else call.timestamp)
    sent = _moment(call.sentAt if call.sentAt is not None else delivery.sent_at)
    if isinstance(original, Rejected):
        return original
    if isinstance(sent, Rejected):
        return sent
    if original is None:
        return delivery.received_micros
    skew = 0 if sent is None else delivery.received_micros - sent
    corrected = original if abs(skew) < LATENCY_MICROS else original + skew
    if not 0 <= corrected < END_MICROS:
        return Rejected(Reason.TIMESTAMP, f"expected a time from 1970 to 9999, got {corrected // 1_000_000} s")
    return corrected


def _moment(stamp: datetime | int | None) -> int | Rejected | None:
    """Microseconds since the epoch; numbers are milliseconds."""
    if stamp is None:
        return None
    if isinstance(stamp, int):
        return stamp * 1_000
    if stamp.tzinfo is None:
        return Rejected(Reason.TIMESTAMP, f"expected RFC 3339 with a zone, got {stamp.isoformat()}")
    return micros_of(stamp)
