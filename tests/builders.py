"""Data for tests, each with what matters named and the rest sensible."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import msgspec

from eventstore.events.cells import Batch, Cells, encode, key_end, values
from eventstore.events.row import Row
from eventstore.events.stored import StoredEvent
from eventstore.ingest.latest import latest_row
from eventstore.tenancy import BucketHistory, Cluster, Registry, Tenant, Tier
from eventstore.tenancy.buckets import history

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOW_MS = 1_790_000_000_000
"""A fixed now for tests that need no other: 2026-09-21."""


def envelope(
    *,
    tenant: str = "shop",
    uid: str = "u1",
    event: str = "product_viewed",
    timestamp: int | str = NOW_MS,
    message_id: str | None = None,
    properties: Mapping[str, Any] | None = None,
    **extra: Any,
) -> bytes:
    """One record's value as a producer publishes it; `extra` adds or overrides fields."""
    fields: dict[str, Any] = {"tenant": tenant, "uid": uid, "event": event, "timestamp": timestamp}
    if message_id is not None:
        fields["message_id"] = message_id
    return msgspec.json.encode(fields | {"properties": properties or {}} | extra)


def cluster(name: str = "c30", **fields: Any) -> Cluster:
    made = Cluster(
        name=name, contact_points=("127.0.0.1",), port=9042, datacenter="dc1", keyspace="eventstore", replication=1
    )
    return replace(made, **fields)


def tier(
    name: str = "t30",
    *,
    days: int = 30,
    width_days: int = 10,
    on: Cluster | None = None,
    buckets: BucketHistory | None = None,
) -> Tier:
    """A tier of one bucket width unless `buckets` says more."""
    return Tier(
        name=name,
        retention_seconds=days * 86_400,
        impressions_retention_seconds=days * 86_400,
        cluster=on or cluster(name.replace("t", "c", 1)),
        buckets=buckets or history([(0, width_days * DAY_MS)]),
    )


def registry(*tenants: Tenant) -> Registry:
    """A registry of these tenants, their tiers and clusters; without any: `shop` on a 30-day tier."""
    made = tenants or (Tenant("shop", tier()),)
    tiers = {tenant.tier.name: tenant.tier for tenant in made}
    return Registry(
        clusters={each.cluster.name: each.cluster for each in tiers.values()},
        tiers=tiers,
        tenants={tenant.name: tenant for tenant in made},
    )


def row(*, number: int = 1, ttl_seconds: int | None = None, **fields: Any) -> Row:
    """A row of one user; `number` makes its `eid` and its time, in milliseconds after `NOW_MS`."""
    made = Row(
        uid="u1", tenant="shop", bid=3, ts_ms=NOW_MS + number, eid=eid(number).bytes, event="product_viewed",
        properties=b'{"number": %d}' % number, context=b"{}", write_micros=(NOW_MS + number) * 1000,
        ttl_seconds=ttl_seconds,
    )  # fmt: skip
    return msgspec.structs.replace(made, **fields)


def batch(*rows: Row) -> Batch:
    """The rows as an `EventWriter` takes them."""
    return [encode(each) for each in rows]


def latest(row: Row) -> Cells:
    """The row of the table `latest` that an event's row comes to."""
    cells = encode(row)
    return latest_row(cells, key_end(cells))


def uid_of(cells: Cells) -> str:
    return values(cells)[0].decode()


def stored(timestamp: int = NOW_MS, number: int = 1, event: str = "product_viewed") -> StoredEvent:
    """A stored event; `number` makes its `eid`, a version 8 UUID, so that order by number is the server's order."""
    return StoredEvent(
        timestamp, eid(number), event, msgspec.Raw(f'{{"number": {number}}}'.encode()), msgspec.Raw(b"{}")
    )


def eid(number: int) -> UUID:
    return UUID(int=number | 8 << 76 | 2 << 62)
