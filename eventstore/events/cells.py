"""A row as the CQL protocol carries it: the cells that its INSERT statement binds, encoded once and never again.

Layout: a head that tells the statement, then each cell with its length (4 bytes) before it. For an event these are uid,
tenant, bid, ts, eid, event, properties, context, write timestamp, and for a late row its remaining time to live. The bytes
are those that the CQL driver would bind; a property test holds that.

The head is the statement's number and how many cells it binds, a byte each. Events have the number 0, so that their head is
the count that the protocol wants before the cells: what is written most is sent as it lies. Other rows get theirs on the way.
"""

from collections.abc import Mapping
from enum import StrEnum
from struct import Struct
from typing import Final

from eventstore.events.row import Row

SHORT: Final = Struct(">H").pack
INT: Final = Struct(">i").pack
FRESH: Final = b"\0\x09"
LATE: Final = b"\0\x0a"
"""A late row has one cell more: what is left of its life."""
FRESH_LATEST: Final = b"\1\x05"
"""Cells: uid, tenant, event, item, write timestamp."""
LATE_LATEST: Final = b"\1\x06"
LAST_SEEN: Final = b"\2\x07"
"""Cells: uid, tenant, bid, post, time, write timestamp, time to live."""
FIRST_SEEN: Final = b"\3\x07"

STATEMENTS: Final[Mapping[bytes, str]] = {
    FRESH: "insert_event",
    LATE: "insert_late_event",
    FRESH_LATEST: "insert_latest",
    LATE_LATEST: "insert_late_latest",
    LAST_SEEN: "insert_last_seen",
    FIRST_SEEN: "insert_first_seen",
}
"""Files of `schemas/cql` by the heads of the rows that they insert."""


class TableName(StrEnum):
    """The tables of every cluster."""

    EVENTS = "events"
    LATEST = "latest"
    IMPRESSIONS = "impressions"


_WITHOUT_BID: Final = FRESH_LATEST[0]
"""The number of statements whose table has no buckets."""
_TABLES: Final = (TableName.EVENTS, TableName.LATEST, TableName.IMPRESSIONS, TableName.IMPRESSIONS)
"""By the statement's number."""
BUCKET: Final = Struct(">iii").pack
"""Length and value of the bid, length of the ts."""
MOMENT: Final = Struct(">qi16si").pack
"""The ts, length and value of the eid, length of the event name."""
WRITE_TIME: Final = Struct(">iq").pack
"""Length and value of the write timestamp, the last cell of a fresh row."""
LATE_END: Final = Struct(">iqii").pack
"""The same for a late row, then length and value of its time to live."""

Cells = bytes
Batch = list[Cells]
"""Rows of one partition of one table, written as one mutation."""


def text(value: str) -> bytes:
    """A text cell: its length, then its UTF-8."""
    encoded = value.encode()
    return INT(len(encoded)) + encoded


def encode(row: Row) -> Cells:
    event = row.event.encode()
    parts = [
        FRESH if row.ttl_seconds is None else LATE,
        text(row.uid),
        text(row.tenant),
        BUCKET(4, row.bid, 8),
        MOMENT(row.ts_ms, 16, row.eid, len(event)),
        event,
        INT(len(row.properties)),
        row.properties,
        INT(len(row.context)),
        row.context,
        WRITE_TIME(8, row.write_micros)
        if row.ttl_seconds is None
        else LATE_END(8, row.write_micros, 4, row.ttl_seconds),
    ]
    return b"".join(parts)


def table_of(cells: Cells) -> TableName:
    return _TABLES[cells[0]]


def nothing_beside(cells: Cells) -> Cells:
    """A row of the same partition that does no harm: empty, of a time before any event's, and gone after a second."""
    head, nothing = _NOTHING[table_of(cells)]
    end = LATE_END(8, int.from_bytes(write_time(cells), "big", signed=True), 4, 1)
    return b"".join((head, cells[2 : key_end(cells)], nothing, end))


_NO_EVENT: Final = INT(8) + MOMENT(-1, 16, bytes(16), 0) + 2 * text("{}")
_NOTHING: Final = {
    TableName.EVENTS: (LATE, _NO_EVENT),
    TableName.LATEST: (LATE_LATEST, text("") + INT(len(_NO_EVENT)) + _NO_EVENT),
    TableName.IMPRESSIONS: (LAST_SEEN, text("") + Struct(">iq").pack(8, -1)),
}
"""Head and cells, without those of the partition key and the last two."""


def values(cells: Cells) -> list[bytes]:
    """Each cell's value."""
    found = []
    offset = 2
    while offset < len(cells):
        start = offset + 4
        offset = start + int.from_bytes(cells[offset:start], "big")
        found.append(cells[start:offset])
    return found


def write_time(cells: Cells) -> bytes:
    """The value of the write timestamp, microseconds: the last cell, or the last but one before a time to live."""
    return cells[-8:] if cells[:2] in _LIFELESS else cells[-16:-8]


_LIFELESS: Final = (FRESH, FRESH_LATEST)
"""Bind no time to live: the table's default holds."""


def key_end(cells: Cells) -> int:
    """Where the cells of the partition key end: uid, tenant, and the bid where there is one."""
    _, tenant_end = _ends(cells)
    return tenant_end if cells[0] == _WITHOUT_BID else tenant_end + 8


def routing_key(cells: Cells) -> bytes:
    """The partition key as its token is hashed from: each component with its length before and a zero behind."""
    uid_end, tenant_end = _ends(cells)
    bid = b"" if cells[0] == _WITHOUT_BID else cells[tenant_end + 2 : tenant_end + 8] + b"\0"
    return b"".join((cells[4:uid_end], b"\0", cells[uid_end + 2 : tenant_end], b"\0", bid))


def _ends(cells: Cells) -> tuple[int, int]:
    """Where the cells of uid and tenant end."""
    uid_end = 6 + int.from_bytes(cells[2:6], "big")
    return uid_end, uid_end + 4 + int.from_bytes(cells[uid_end : uid_end + 4], "big")
