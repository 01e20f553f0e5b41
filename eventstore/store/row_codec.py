"""Rows as the CQL protocol carries them: the cells of the two INSERT statements, in bind order.

The statements bind uid, tenant, bid, ts, eid, event, properties, context, then the write timestamp and, for a late row,
its remaining time to live. The bytes are those that the driver's own `bind` would make: a property test holds that.
"""

from struct import Struct

from eventstore.events.row import Row

_INT = Struct(">i").pack
_BIGINT = Struct(">q").pack


def cells(row: Row) -> list[bytes]:
    """The cells that the row's statement binds."""
    bound = [
        row.uid.encode(),
        row.tenant.encode(),
        _INT(row.bid),
        _BIGINT(row.ts_ms),
        row.eid,
        row.event.encode(),
        row.properties,
        row.context,
        _BIGINT(row.write_micros),
    ]
    if row.ttl_seconds is not None:
        bound.append(_INT(row.ttl_seconds))
    return bound
