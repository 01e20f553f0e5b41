"""One record's verdict: what of it to store, expired on arrival, erased, or rejected with the reason. Pure; `now` is passed in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from eventstore.events import (
    Coordinates,
    Event,
    Reason,
    Rejected,
    check_key,
    check_limits,
    decode,
    event_id,
    event_micros,
)
from eventstore.events.envelope import Sent
from eventstore.events.erasure import Erasures
from eventstore.events.impressions import Impression, Impressions, decode_impressions, posts_seen
from eventstore.events.row import Row
from eventstore.ingest.impressions import rows_of
from eventstore.tenancy import Registry, Tenant, Tier

MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class ClockRules:
    max_future_seconds: float = 86_400.0
    """How far an event may lie in the future."""
    late_after_seconds: float = 3_600.0
    """Age from which a row is bound its remaining time to live instead of the table's default."""


class Admitted(NamedTuple):
    row: Row
    tier: Tier

    @property
    def tenant(self) -> str:
        return self.row.tenant


class AdmittedPosts(NamedTuple):
    """Of a record of impressions: those that are neither expired nor erased, at least one."""

    impressions: Sequence[Impression]
    tier: Tier

    @property
    def tenant(self) -> str:
        return self.impressions[0].tenant


class Expired(NamedTuple):
    """Older than its tier keeps such records: nothing to store, nothing lost."""

    tier: Tier


class Erased(NamedTuple):
    """At or before the moment to which its user's past was erased: it must not be stored again, nor kept as a dead letter."""


Verdict = Admitted | AdmittedPosts | Expired | Erased | Rejected


@dataclass(frozen=True, slots=True)
class Admission:
    """What decides over the records of one run."""

    registry: Registry
    now_micros: int
    rules: ClockRules
    erasures: Erasures = field(default_factory=Erasures)

    def verdict(self, value: bytes | None, key: bytes | None, origin: Callable[[], Coordinates]) -> Verdict:
        """Decode, validate, route and transform one record.

        `origin` gives the coordinates where the record first stood; it is asked only when the producer gave no message id.
        """
        event = decode(value)
        if isinstance(event, Rejected):
            other = decode_impressions(value) if value and event.reason is Reason.MALFORMED else None
            return event if other is None else self._impressions(other, key)
        if (wrong := check_limits(event) or check_key(event, key)) is not None:
            return wrong
        micros = event_micros(event, self.now_micros, self._max_future_micros)
        if isinstance(micros, Rejected):
            return micros
        if micros <= self.erasures.floor(key):
            return Erased()
        tenant = self._tenant(event)
        if isinstance(tenant, Rejected):
            return tenant
        return check_schema(event.event, bytes(event.properties), tenant) or self._row(
            event, tenant.tier, micros, origin
        )

    @property
    def _max_future_micros(self) -> int:
        return int(self.rules.max_future_seconds * MICROS)

    def _impressions(self, record: Impressions | Rejected, key: bytes | None) -> Verdict:
        if isinstance(record, Rejected):
            return record
        posts = posts_seen(record, self.now_micros, self._max_future_micros)
        if isinstance(posts, Rejected):
            return posts
        if (wrong := check_key(record, key)) is not None:
            return wrong
        floor = self.erasures.floor(key)
        kept = [seen for seen in posts if seen.micros > floor]
        if not kept:
            return Erased()
        tenant = self._tenant(record)
        if isinstance(tenant, Rejected):
            return tenant
        rows = list(rows_of(record, kept, tenant.tier, self.now_micros))
        return AdmittedPosts(rows, tenant.tier) if rows else Expired(tenant.tier)

    def _tenant(self, sent: Sent) -> Tenant | Rejected:
        tenant = self.registry.tenants.get(sent.tenant)
        if tenant is None:
            return Rejected(Reason.UNKNOWN_TENANT, f"expected a tenant of the registry, got {sent.tenant!r}")
        if not tenant.enabled:
            return Rejected(Reason.DISABLED_TENANT, f"tenant {sent.tenant!r} is disabled in the registry")
        return tenant

    def _row(self, event: Event, tier: Tier, micros: int, origin: Callable[[], Coordinates]) -> Admitted | Expired:
        age = (self.now_micros - micros) // MICROS
        # Expiry counts from the server's now: a late row gets what is left of its retention, never 0, which means for ever.
        ttl = tier.retention_seconds - age if age >= self.rules.late_after_seconds else None
        if ttl is not None and ttl <= 0:
            return Expired(tier)
        ts_ms = micros // 1_000
        row = Row(
            uid=event.uid,
            tenant=event.tenant,
            bid=tier.buckets.bid(ts_ms),
            ts_ms=ts_ms,
            eid=event_id(event.tenant, event.message_id, origin),
            event=event.event,
            properties=bytes(event.properties),
            context=bytes(event.context),
            write_micros=micros,
            ttl_seconds=ttl,
        )
        return Admitted(row, tier)


def check_schema(event: str, properties: bytes, tenant: Tenant) -> Rejected | None:
    if (schema := tenant.schemas.get(event)) is not None:
        return schema.check(properties)
    if tenant.only_listed_events:
        listed = ", ".join(sorted(tenant.schemas)) or "none"
        return Rejected(Reason.UNKNOWN_EVENT, f"tenant {tenant.name!r} accepts {listed}; got {event!r}")
    return None
