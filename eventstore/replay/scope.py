"""Which of the events are meant, and where they go: filters on the registry, on keys and on names. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from eventstore.errors import ConfigurationError, RefusedError
from eventstore.tenancy import Registry, Tenant, Tier

SHOWN: Final = 5
"""Most names of an error message."""


class Scope(msgspec.Struct, frozen=True):
    """Conditions on different fields must all hold; of several in one field, one is enough. Empty: all."""

    clusters: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    into: str | None = None
    """A cluster that takes the place of the tier's own: a rebuilt or parallel one."""

    @property
    def picks_tenants(self) -> bool:
        return bool(self.clusters or self.tiers or self.tenants)


def scoped(registry: Registry, scope: Scope) -> Registry:
    """What is left of the registry: the tenants meant, their tiers, and the clusters that are written.

    Raises:
        ConfigurationError: a name that the registry does not know, or none that meets all conditions.
        RefusedError: `into` would mix two tiers, which are two retentions, in one table.
    """
    _refuse_unknown("--cluster", scope.clusters, registry.clusters)
    _refuse_unknown("--tier", scope.tiers, registry.tiers)
    _refuse_unknown("--tenant", scope.tenants, registry.tenants)
    tenants = [tenant for tenant in registry.tenants.values() if _is_meant(tenant, scope)]
    if not tenants:
        raise ConfigurationError(
            "--cluster, --tier, --tenant: expected a tenant that meets all of them, found none; leave one out "
            "(see `eventstore tenants list`)"
        )
    if scope.into is not None:
        target = _moved(registry, scope.into, {tenant.tier.name: tenant.tier for tenant in tenants})
        tenants = [replace(tenant, tier=target) for tenant in tenants]
    tiers = {tenant.tier.name: tenant.tier for tenant in tenants}
    return Registry(
        clusters={tier.cluster.name: tier.cluster for tier in tiers.values()},
        tiers=tiers,
        tenants={tenant.name: tenant for tenant in tenants},
    )


def _is_meant(tenant: Tenant, scope: Scope) -> bool:
    return (
        (not scope.tenants or tenant.name in scope.tenants)
        and (not scope.tiers or tenant.tier.name in scope.tiers)
        and (not scope.clusters or tenant.tier.cluster.name in scope.clusters)
    )


def _moved(registry: Registry, into: str, tiers: dict[str, Tier]) -> Tier:
    """The one tier that is meant, on another cluster."""
    if len(tiers) > 1:
        raise RefusedError(
            f"--into {into}: expected events of one tier, got {_listed(tiers)}; one table holds one retention: "
            "name one of them with --tier"
        )
    (tier,) = tiers.values()
    return on_cluster(registry, tier, into, "--into")


def on_cluster(registry: Registry, tier: Tier, cluster: str, option: str) -> Tier:
    """The tier on a cluster of its own or that none uses: a rebuilt or parallel one. `option` is what named it.

    Raises:
        ConfigurationError: the registry does not know the cluster.
        RefusedError: another tier uses it, which is another retention.
    """
    _refuse_unknown(option, (cluster,), registry.clusters)
    owner = registry.tier_of(cluster)
    if owner is not None and owner.name != tier.name:
        raise RefusedError(
            f"{option} {cluster}: expected a cluster that no other tier uses, found tier {owner.name} on it; events of "
            f"{tier.name} would be foreign rows there: name a cluster of their own"
        )
    return replace(tier, cluster=registry.clusters[cluster])


def _refuse_unknown(option: str, names: Iterable[str], known: Collection[str]) -> None:
    if missing := [name for name in names if name not in known]:
        raise ConfigurationError(
            f"{option}: expected names of the registry ({_listed(known)}), got {', '.join(missing)}; "
            "see `eventstore tenants list`"
        )


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown or "none"


class _Named(msgspec.Struct):
    event: str | None = None
    posts: msgspec.Raw | None = None
    """Impressions have no name, so that names leave them out."""


_name = msgspec.json.Decoder(_Named).decode


@dataclass(frozen=True, slots=True)
class Selection:
    """The records of a scope, told by as little of each as possible."""

    prefixes: frozenset[bytes] | None
    """Tenants as Kafka keys begin with them; None: all. A record whose body names another tenant is no event at all."""
    events: frozenset[str]
    """Names; empty: all."""

    @property
    def everything(self) -> bool:
        return self.prefixes is None and not self.events

    def picks(self, key: bytes | None, value: bytes | None) -> bool:
        """Whether the record is meant. One whose name cannot be read is: what is wrong with it will be told."""
        if self.prefixes is not None and (key is None or key.partition(b":")[0] not in self.prefixes):
            return False
        if not self.events:
            return True
        try:
            named = _name(value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return True
        return named.event in self.events or (named.event is None and named.posts is None)


def selection(scope: Scope, meant: Registry) -> Selection:
    """The records of a scope; `meant` is what `scoped` left of the registry."""
    prefixes = frozenset(name.encode() for name in meant.tenants) if scope.picks_tenants else None
    return Selection(prefixes, frozenset(scope.events))
