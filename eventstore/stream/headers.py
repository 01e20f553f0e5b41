"""The names of our record headers, and how the two that are read by machines are spelled.

A dead letter is the original record, byte for byte, its own headers first and then these, always all eight and in this
order: so that a replay can take off exactly what was put on. Values are UTF-8 text.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from eventstore.events import Coordinates

REASON: Final = "es-reason"
"""A code of `eventstore.events.Reason`."""
DETAIL: Final = "es-detail"
"""What was expected and what came, for people; at most MAX_DETAIL_BYTES."""
TOPIC: Final = "es-topic"
PARTITION: Final = "es-partition"
OFFSET: Final = "es-offset"
TIME: Final = "es-time"
"""When it was rejected: RFC 3339, UTC."""
VERSION: Final = "es-version"
"""The version of Eventstore that rejected it."""
TIMESTAMP: Final = "es-timestamp"
"""The original record's Kafka timestamp, milliseconds since the epoch; -1 if it had none."""
DEAD_LETTER: Final = (REASON, DETAIL, TOPIC, PARTITION, OFFSET, TIME, VERSION, TIMESTAMP)

ORIGIN: Final = "es-origin"
"""On a replayed or diverted record: `topic/partition/offset` where it first stood. Its row identity comes from there."""
REPLAYED: Final = "es-replayed"
"""On a marker in the dead-letter topic: the topic to which the dead letters it lists have been republished."""

MAX_DETAIL_BYTES: Final = 1_000

Headers = Sequence[tuple[str, bytes | None]]


def origin(headers: Iterable[tuple[str, bytes | None]] | None) -> Coordinates | None:
    """Where a replayed or diverted record first stood; None for all others, and for an origin that nobody of ours wrote."""
    for name, value in headers or ():
        if name == ORIGIN and value is not None and (there := parse_coordinates(value.decode(errors="replace"))):
            return there
    return None


def with_origin(headers: list[tuple[str, bytes | None]], place: Coordinates) -> list[tuple[str, bytes | None]]:
    """The headers of a record that leaves `place`: a record without a message_id keeps its identity by its origin."""
    return headers if origin(headers) else [*headers, (ORIGIN, str(place).encode())]


def parse_coordinates(text: str) -> Coordinates | None:
    """The inverse of `str(coordinates)`; None if the text is anything else."""
    topic, _, numbers = text.partition("/")
    partition, _, offset = numbers.partition("/")
    if not topic or not _is_number(partition) or not _is_number(offset):
        return None
    return Coordinates(topic, int(partition), int(offset))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(2**63))


def text_value(text: str, most: int = MAX_DETAIL_BYTES) -> bytes:
    """Valid UTF-8 of at most `most` bytes, whatever the text holds (a lone surrogate, say)."""
    return text.encode(errors="backslashreplace")[:most].decode(errors="ignore").encode()
