"""What a producer publishes for one record of a source: its Kafka key and value, or why it is refused."""

from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from eventstore.events.decode import decode
from eventstore.events.envelope import Event, encode, record_key
from eventstore.events.foreign import EnvelopeMapping, at_micros
from eventstore.events.identity import derived_message_id
from eventstore.events.reject import Reason, Rejected
from eventstore.events.validate import check_limits, event_micros

DAY_MICROS: Final = 86_400 * 1_000_000


class Outgoing(NamedTuple):
    key: bytes | None
    value: bytes
    micros: int
    """Event time; 0 if unknown."""


class _Claim(msgspec.Struct):
    tenant: str
    uid: str


_claim = msgspec.json.Decoder(_Claim).decode


@dataclass(frozen=True, slots=True)
class Preparation:
    """How records are made ready; a mapping of None takes records that are our envelope already."""

    now_micros: int
    mapping: EnvelopeMapping | None = None
    shift_micros: int = 0
    """Added to every event time."""
    max_future_micros: int = DAY_MICROS

    def event_micros(self, record: bytes) -> int | Rejected:
        """The event time of a record, unshifted: enough to find the newest of a source."""
        event = self._event(record)
        return event if isinstance(event, Rejected) else self._micros(event)

    def prepare(self, record: bytes, position: int) -> Outgoing | Rejected:
        """The record at this place of its source, ready to publish; never raises.

        An envelope that needs no change is published as the bytes it came in. One without a `message_id` gets one from
        its bytes and place, so that publishing the same file again makes the same rows.
        """
        event = self._event(record)
        if isinstance(event, Rejected):
            return event
        micros = self._micros(event)
        if isinstance(micros, Rejected):
            return micros
        micros += self.shift_micros
        if micros < 0:
            return Rejected(Reason.TIMESTAMP, f"expected a time since 1970, got {micros // 1_000_000} s once shifted")
        if self.mapping is None and event.message_id and not self.shift_micros:
            return check_limits(event) or Outgoing(record_key(event), record, micros)
        return _rebuilt(event, micros, event.message_id or derived_message_id(record, position))

    def _event(self, record: bytes) -> Event | Rejected:
        return decode(record) if self.mapping is None else self.mapping.event_of(record)

    def _micros(self, event: Event) -> int | Rejected:
        return event_micros(event, self.now_micros - self.shift_micros, self.max_future_micros)


def _rebuilt(event: Event, micros: int, message_id: str) -> Outgoing | Rejected:
    value = encode(msgspec.structs.replace(event, timestamp=at_micros(micros), message_id=message_id))
    made = decode(value)  # as the worker will
    if isinstance(made, Rejected):
        return made
    return check_limits(made) or Outgoing(record_key(made), value, micros)


def unchecked(record: bytes) -> Outgoing:
    """The record as it is, whatever is wrong with it; its key if one can be told."""
    try:
        claim = _claim(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Outgoing(None, record, 0)
    return Outgoing(f"{claim.tenant}:{claim.uid}".encode(), record, 0)
