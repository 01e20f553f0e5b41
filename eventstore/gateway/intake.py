"""What one tenant sends over HTTP, judged by the rules that its Kafka records keep, and made ready for Kafka."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec

from eventstore.events import Event, Reason, Rejected, check_limits, event_micros
from eventstore.events.decode import MAX_EVENT_BYTES
from eventstore.events.envelope import NO_CONTEXT, encode, record_key
from eventstore.events.foreign import at_micros
from eventstore.events.identity import derived_message_id
from eventstore.events.segment import Delivery, event_of
from eventstore.ingest.admission import check_schema
from eventstore.stream.publisher import Outgoing
from eventstore.tenancy import Tenant

MAX_SHOWN: Final = 100
"""Refused events that an answer tells of; the dead letters have all of them."""


class Refused(msgspec.Struct, frozen=True):
    """An event that was not accepted, as the sender is told."""

    index: int
    """Its place in the request, from 0."""
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """The same for the dead letters: what there was of it."""

    refused: Refused
    key: bytes | None
    value: bytes


class Posted(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """Our envelope as it is posted: the key says whose it is, so the tenant may be left out."""

    tenant: str | None = None
    uid: str
    event: str
    message_id: str | None = None
    timestamp: int | datetime | None = None
    """Now, if there is none."""
    properties: msgspec.Raw = NO_CONTEXT
    context: msgspec.Raw = NO_CONTEXT


_posted = msgspec.json.Decoder(Posted).decode


@dataclass(slots=True)
class Intake:
    """Takes the events of one request."""

    tenant: Tenant
    now_micros: int
    max_future_micros: int
    accepted: list[Outgoing] = field(default_factory=list)
    refused: list[RefusedEvent] = field(default_factory=list)
    taken: int = 0
    """Events seen so far, good and bad: the next one's place in the request."""
    accepted_count: int = 0
    refused_count: int = 0
    """Of those that are done with: in Kafka, or in its dead letters."""
    shown: list[Refused] = field(default_factory=list)
    """The first ones that were refused, for the answer."""

    def take(self) -> tuple[list[Outgoing], list[RefusedEvent]]:
        """What has been accepted and refused since the last call."""
        accepted, refused = self.accepted, self.refused
        self.accepted, self.refused = [], []
        return accepted, refused

    def settle(self, accepted: Sequence[Outgoing], refused: Sequence[RefusedEvent]) -> None:
        """Kafka has all of these."""
        self.accepted_count += len(accepted)
        self.refused_count += len(refused)
        self.shown += [each.refused for each in refused[: MAX_SHOWN - len(self.shown)]]

    def call(self, raw: bytes, delivery: Delivery) -> None:
        """Take a call of the Segment API."""
        self._take(raw, event_of(raw, self.taken, delivery))

    def envelope(self, raw: bytes) -> None:
        """Take an event in our own envelope."""
        self._take(raw, self._event(raw))

    def _event(self, raw: bytes) -> Event | Rejected:
        if len(raw) > MAX_EVENT_BYTES:
            return Rejected(Reason.TOO_LARGE, f"expected at most {MAX_EVENT_BYTES} bytes, got {len(raw)}")
        try:
            posted = _posted(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return Rejected(Reason.MALFORMED, str(error))
        except RecursionError:
            return Rejected(Reason.MALFORMED, "nested too deeply to be read")
        if posted.tenant not in (None, self.tenant.name):
            return Rejected(
                Reason.KEY_MISMATCH, f"tenant: expected {self.tenant.name!r}, whose key this is, got {posted.tenant!r}"
            )
        return Event(
            tenant=self.tenant.name,
            uid=posted.uid,
            event=posted.event,
            # the same bytes posted again are the same event: a retry makes no second row
            message_id=posted.message_id or derived_message_id(raw, self.taken),
            timestamp=at_micros(self.now_micros) if posted.timestamp is None else posted.timestamp,
            properties=posted.properties,
            context=posted.context,
        )

    def _take(self, raw: bytes, event: Event | Rejected) -> None:
        outgoing = event if isinstance(event, Rejected) else self._admitted(event)
        if isinstance(outgoing, Rejected):
            refused = Refused(self.taken, outgoing.reason, outgoing.detail)
            self.refused.append(
                RefusedEvent(refused, None, raw)
                if isinstance(event, Rejected)
                else RefusedEvent(refused, record_key(event), encode(event))
            )
        else:
            self.accepted.append(outgoing)
        self.taken += 1

    def _admitted(self, event: Event) -> Outgoing | Rejected:
        micros = event_micros(event, self.now_micros, self.max_future_micros)
        if isinstance(micros, Rejected):
            return micros
        if (
            wrong := check_limits(event) or check_schema(event.event, bytes(event.properties), self.tenant)
        ) is not None:
            return wrong
        value = encode(event)
        if len(value) > MAX_EVENT_BYTES:
            return Rejected(Reason.TOO_LARGE, f"expected at most {MAX_EVENT_BYTES} bytes as a record, got {len(value)}")
        return Outgoing(record_key(event), value)
