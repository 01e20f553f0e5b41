"""Every row of every cluster, counted: whose they are and whether they are where they belong."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from eventstore.config import Settings
from eventstore.store.failures import mapped
from eventstore.store.session import close, connect
from eventstore.store.statements import statement
from eventstore.tenancy import Registry, Tier


@dataclass(frozen=True, slots=True)
class ClusterCensus:
    tier: Tier
    tenants: int
    """Tenants that the registry puts here."""
    rows: int
    foreign: int
    """Rows of tenants that belong elsewhere: must be 0."""


@dataclass(frozen=True, slots=True)
class Census:
    clusters: tuple[ClusterCensus, ...]
    users: Mapping[tuple[str, str], int] = field(repr=False)
    """Rows by (tenant, uid)."""

    @property
    def rows(self) -> int:
        return sum(cluster.rows for cluster in self.clusters)

    @property
    def foreign(self) -> int:
        return sum(cluster.foreign for cluster in self.clusters)

    def busiest(self) -> tuple[str, str]:
        """(tenant, uid) of the user with the most rows."""
        return max(self.users, key=self.users.__getitem__)


def take_census(settings: Settings, registry: Registry) -> Census:
    """Read the users of all rows of all clusters that hold a tier. For demos and tests: it scans whole tables.

    Raises:
        StoreError: a cluster does not answer.
    """
    users: Counter[tuple[str, str]] = Counter()
    clusters = []
    for tier in registry.tiers.values():
        found = _users(settings, tier)
        home = {tenant.name for tenant in registry.tenants.values() if tenant.tier == tier}
        foreign = sum(count for (tenant, _), count in found.items() if tenant not in home)
        clusters.append(ClusterCensus(tier, len(home), found.total(), foreign))
        users += found
    return Census(tuple(clusters), users)


def _users(settings: Settings, tier: Tier) -> Counter[tuple[str, str]]:
    session = connect(tier.cluster, request_timeout=settings.writer.request_timeout)
    try:
        with mapped(tier.cluster.name):
            return Counter((row.tenant, row.uid) for row in session.execute(statement("scan_users")))
    finally:
        close(session)
