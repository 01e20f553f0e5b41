"""What an event is and what may pass as one. Pure: no input or output, no clock."""

from eventstore.events.decode import decode
from eventstore.events.envelope import Event
from eventstore.events.identity import Coordinates, event_id
from eventstore.events.reject import Reason, Rejected
from eventstore.events.schema import CompiledSchema, SchemaInvalidError, compile_schema
from eventstore.events.validate import check_key, check_limits, event_micros

__all__ = [
    "CompiledSchema",
    "Coordinates",
    "Event",
    "Reason",
    "Rejected",
    "SchemaInvalidError",
    "check_key",
    "check_limits",
    "compile_schema",
    "decode",
    "event_id",
    "event_micros",
]
