"""Bytes from Kafka to an Event, or the reason why not."""

import msgspec

from eventstore.events.envelope import Event
from eventstore.events.reject import Reason, Rejected

MAX_EVENT_BYTES = 32 * 1024

decode_event = msgspec.json.Decoder(Event).decode
"""The same, but raising: for records that have been measured otherwise."""


def decode(value: bytes | None) -> Event | Rejected:
    """The event in a record's value. Never raises: whatever the bytes are, an Event or a Rejected comes out."""
    if not value:
        return Rejected(Reason.EMPTY, "expected a JSON object, got no value" if value is None else "got zero bytes")
    if len(value) > MAX_EVENT_BYTES:
        return Rejected(Reason.TOO_LARGE, f"expected at most {MAX_EVENT_BYTES} bytes, got {len(value)}")
    try:
        return decode_event(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Rejected(Reason.MALFORMED, str(error))
    except RecursionError:
        return Rejected(Reason.MALFORMED, "nested too deeply to be read")
