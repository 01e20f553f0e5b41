"""An event as it is stored."""

import msgspec


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row of the table `events`, plus how it is written. Texts are str, JSON stays the producer's bytes."""

    uid: str
    tenant: str
    bid: int
    ts_ms: int
    eid: bytes
    event: str
    properties: bytes
    context: bytes
    write_micros: int
    """The cells' write timestamp: event time, so a replay never overwrites anything newer."""
    ttl_seconds: int | None
    """Remaining life of a late row; None: the table's default, counted from the server's now."""
