"""Why a record cannot be stored."""

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """A reject's code: in dead-letter headers, metrics and `eventstore dlq` filters. Codes are never renamed."""

    EMPTY = "empty"
    """No value: a tombstone or zero bytes."""
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    """Not UTF-8 JSON of the envelope's shape."""
    LIMIT = "limit"
    """A field is empty, too long, nested too deeply or holds a forbidden character."""
    TIMESTAMP = "timestamp"
    """Without a zone, before the epoch, or too far in the future."""
    KEY_MISMATCH = "key_mismatch"
    """The Kafka key does not claim the tenant and user that the body names."""
    UNKNOWN_TENANT = "unknown_tenant"
    DISABLED_TENANT = "disabled_tenant"
    UNKNOWN_EVENT = "unknown_event"
    """The tenant accepts listed event names only."""
    SCHEMA = "schema"
    """`properties` break the tenant's JSON Schema for this event."""


class Rejected(msgspec.Struct, frozen=True):
    """A record that breaks a rule: which rule, and what exactly was wrong."""

    reason: Reason
    detail: str
