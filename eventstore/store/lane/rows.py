"""The rows of a RESULT, taken straight from its body: JSON stays the bytes that it came as, times stay numbers. Pure.

What is read equals what the driver's own decoder reads; a property test holds that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError  # noqa: N812 — it is a class
from typing import Final, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from cassandra.connection import ProtocolError

from eventstore.events.stored import SeenPost, StoredEvent
from eventstore.store.lane.frames import Reader

T = TypeVar("T")

ROWS: Final = 2
"""The kind of a RESULT that has rows."""
ONE_TABLE: Final = 0x01
HAS_MORE: Final = 0x02
WITHOUT_COLUMNS: Final = 0x04
"""As EXECUTE asked for: what the columns are is known from the statement. Cassandra describes them all the same where the
description is another than when it prepared the statement."""
TUPLE: Final = 0x31
"""The type that is described by others; no other such is in our tables."""

_HEAD: Final = Struct(">iii")
"""Kind, flags, number of columns."""
_INT: Final = Struct(">i").unpack_from
_START: Final = Struct(">iqi16si")
"""Length and value of the ts, length and value of the eid, length of the event's name."""
_start: Final = _START.unpack_from
_COUNT: Final = Struct(">iq")
_TIME: Final = Struct(">q").unpack
_NOTHING: Final = b"{}"
"""What stands for JSON that somebody has left out."""


class Page(NamedTuple, Generic[T]):
    rows: list[T]
    state: bytes | None
    """Where the next page begins; None: there is none."""


@dataclass(frozen=True, slots=True)
class Rows(Generic[T]):
    """Rows of one make."""

    columns: int
    take: Callable[[bytes, int, int], tuple[list[T], int]]
    """So many rows of a body from an offset on, and where they end."""

    def page(self, body: bytes) -> Page[T]:
        """What a RESULT holds.

        Raises:
            cassandra.connection.ProtocolError: it is none of such rows; the node's fault.
        """
        try:
            kind, flags, columns = _HEAD.unpack_from(body)
            if (kind, columns) == (ROWS, self.columns):
                state, offset = _cell(body, _HEAD.size) if flags & HAS_MORE else (None, _HEAD.size)
                if not flags & WITHOUT_COLUMNS:
                    offset = _described(body, offset, columns, one_table=flags & ONE_TABLE)
                found, end = self.take(body, offset + 4, _INT(body, offset)[0])
                if end == len(body):
                    return Page(found, state)
        except (StructError, UnicodeDecodeError, msgspec.ValidationError) as garbled:
            raise self._none(body) from garbled
        raise self._none(body)

    def _none(self, body: bytes) -> ProtocolError:
        return ProtocolError(f"expected rows of {self.columns} columns, got {body[:64].hex()}")


def _events(body: bytes, offset: int, count: int) -> tuple[list[StoredEvent], int]:
    return _with_lead(body, offset, count, 0)


def _items(body: bytes, offset: int, count: int) -> tuple[list[StoredEvent], int]:
    return _with_lead(body, offset, count, 4)


def _with_lead(body: bytes, offset: int, count: int, lead: int) -> tuple[list[StoredEvent], int]:
    """Column by column: a call for each value is what rows cost. `lead` bytes are skipped before each row."""
    times: list[int] = []
    eids: list[bytes] = []
    names: list[str] = []
    properties: list[bytes] = []
    contexts: list[bytes] = []
    for _ in range(count):
        _, time, _, eid, length = _start(body, offset + lead)
        start = offset + lead + _START.size
        end = start + length if length > 0 else start
        names.append(body[start:end].decode())
        (length,) = _INT(body, end)
        start = end + 4
        end = start + length if length > 0 else start
        properties.append(body[start:end] or _NOTHING)
        (length,) = _INT(body, end)
        start = end + 4
        offset = start + length if length > 0 else start
        contexts.append(body[start:offset] or _NOTHING)
        times.append(time)
        eids.append(eid)
    uuids = msgspec.convert(eids, list[UUID])  # an eighth of what their constructor costs
    return list(map(StoredEvent, times, uuids, names, map(msgspec.Raw, properties), map(msgspec.Raw, contexts))), offset


def _posts(body: bytes, offset: int, count: int) -> tuple[list[SeenPost], int]:
    """An erasure's delete shadows the first time of what is seen later in the same bucket: then the last one stands for it."""
    found = []
    for _ in range(count):
        post, offset = _cell(body, offset)
        first, offset = _cell(body, offset)
        last, offset = _cell(body, offset)
        found.append(SeenPost((post or b"").decode(), _millis(first or last), _millis(last or first)))
    return found, offset


def _counts(body: bytes, offset: int, count: int) -> tuple[list[int], int]:
    end = offset + count * _COUNT.size
    return [number for _, number in _COUNT.iter_unpack(body[offset:end])], end


def _described(body: bytes, offset: int, columns: int, one_table: int) -> int:
    """Where the description of the columns ends."""
    reader = Reader(body[offset:])
    names = 2 if one_table else 0
    for _ in range(names):
        reader.string()
    for _ in range(columns):
        for _ in range(3 - names):
            reader.string()
        _skip_type(reader)
    return len(body) - len(reader.rest())


def _skip_type(reader: Reader) -> None:
    if reader.short() == TUPLE:
        for _ in range(reader.short()):
            _skip_type(reader)


def _cell(body: bytes, offset: int) -> tuple[bytes | None, int]:
    """A value, None for null, and where it ends."""
    (length,) = _INT(body, offset)
    start = offset + 4
    if length < 0:
        return None, start
    return body[start : start + length], start + length


def _millis(time: bytes | None) -> int:
    return int(_TIME(time)[0]) if time else 0


EVENTS: Final = Rows(5, _events)
"""ts, eid, event, properties, context."""
ITEMS: Final = Rows(1, _items)
"""One tuple of these."""
POSTS: Final = Rows(3, _posts)
"""post, first_seen, last_seen."""
COUNTS: Final = Rows(1, _counts)
