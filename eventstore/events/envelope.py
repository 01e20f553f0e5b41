"""The envelope producers publish."""

from datetime import datetime
from typing import Protocol

import msgspec

NO_CONTEXT = msgspec.Raw(b"{}")


class Event(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One event as published: a JSON object of exactly these fields; in this order they are decoded fastest.

    An unknown field is refused rather than dropped: what a producer sends is either stored or explained.
    """

    tenant: str
    uid: str
    event: str
    message_id: str | None = None
    timestamp: int | datetime
    """RFC 3339 with a zone, or milliseconds since the epoch."""
    properties: msgspec.Raw = NO_CONTEXT
    """A JSON object, kept as the producer's own bytes from Kafka to the store."""
    context: msgspec.Raw = NO_CONTEXT


encode = msgspec.json.Encoder().encode
"""The bytes of an event's envelope; `properties` and `context` are spliced in as they are."""


class Sent(Protocol):
    """What any envelope tells: whose it is."""

    @property
    def tenant(self) -> str: ...

    @property
    def uid(self) -> str: ...


def record_key(sent: Sent) -> bytes:
    """The Kafka key, `tenant:uid`: all of one user's records are on one partition."""
    return f"{sent.tenant}:{sent.uid}".encode()
