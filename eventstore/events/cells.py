"""A row as the CQL protocol carries it: the cells that its INSERT statement binds, encoded once and never again.

Layout: the number of cells (2 bytes), then each with its length (4 bytes) before it, in the order uid, tenant, bid, ts, eid,
event, properties, context, write timestamp, and for a late row its remaining time to live. The bytes are those that the
CQL driver would bind; a property test holds that.
"""

from struct import Struct
from typing import Final

from eventstore.events.row import Row

SHORT: Final = Struct(">H").pack
INT: Final = Struct(">i").pack
FRESH: Final = SHORT(9)
LATE: Final = SHORT(10)
"""A late row has one cell more."""
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
"""Rows of one partition (uid, tenant, bid), written as one mutation."""


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


def nothing_beside(cells: Cells) -> Cells:
    """A row of the same partition that does no harm: empty, of a time before any event's, and gone after a second."""
    uid, tenant, bid, _, _, _, _, _, write_micros = values(cells)[:9]
    return encode(
        Row(
            uid=uid.decode(),
            tenant=tenant.decode(),
            bid=int.from_bytes(bid, "big", signed=True),
            ts_ms=-1,
            eid=bytes(16),
            event="",
            properties=b"{}",
            context=b"{}",
            write_micros=int.from_bytes(write_micros, "big", signed=True),
            ttl_seconds=1,
        )
    )


def is_late(cells: Cells) -> bool:
    return cells[1] == LATE[1]


def values(cells: Cells) -> list[bytes]:
    """Each cell's value."""
    found = []
    offset = 2
    while offset < len(cells):
        start = offset + 4
        offset = start + int.from_bytes(cells[offset:start], "big")
        found.append(cells[start:offset])
    return found


def routing_key(cells: Cells) -> bytes:
    """The partition key as its token is hashed from: each component with its length before and a zero behind."""
    uid_end = 6 + int.from_bytes(cells[2:6], "big")
    tenant_end = uid_end + 4 + int.from_bytes(cells[uid_end : uid_end + 4], "big")
    return b"".join(
        (
            cells[4:uid_end], b"\0",
            cells[uid_end + 2 : tenant_end], b"\0",
            cells[tenant_end + 2 : tenant_end + 8], b"\0",
        )
    )  # fmt: skip
