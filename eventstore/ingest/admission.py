"""One record's verdict: a row to store, expired on arrival, erased, or rejected with the reason. Pure; `now` is passed in."""

from collections.abc import Callable
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
from eventstore.events.erasure import Erasures
from eventstore.events.row import Row
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


class Expired(NamedTuple):
    """Older than its tier keeps events: nothing to store, nothing lost."""

    tier: Tier


class Erased(NamedTuple):
    """At or before the moment to which its user's past was erased: it must not be stored again, nor kept as a dead letter."""


Verdict = Admitted | Expired | Erased | Rejected


@dataclass(frozen=True, slots=True)
class Admission:
    """What decides over the records of one chunk."""

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
            return event
        if (wrong := check_limits(event) or check_key(event, key)) is not None:
            return wrong
        micros = event_micros(event, self.now_micros, int(self.rules.max_future_seconds * MICROS))
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

    def _tenant(self, event: Event) -> Tenant | Rejected:
        tenant = self.registry.tenants.get(event.tenant)
        if tenant is None:
            return Rejected(Reason.UNKNOWN_TENANT, f"expected a tenant of the registry, got {event.tenant!r}")
        if not tenant.enabled:
            return Rejected(Reason.DISABLED_TENANT, f"tenant {event.tenant!r} is disabled in the registry")
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
