"""Clusters, tiers, tenants, and the registry that holds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from eventstore.events import CompiledSchema
from eventstore.tenancy.buckets import BucketHistory


@dataclass(frozen=True, slots=True)
class TlsFiles:
    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    verify_hostname: bool = True


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to a cluster. The password itself never stands in the registry: only where to find it."""

    username: str
    password_env: str | None = None
    password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    name: str
    contact_points: tuple[str, ...]
    port: int
    datacenter: str
    keyspace: str
    replication: int
    """Replicas in `datacenter`: 3 in production, 1 in the embedded stack."""
    tls: TlsFiles | None = None
    credentials: Credentials | None = None


class Compaction(StrEnum):
    TIME_WINDOW = "time_window"
    """Files of one time window expire and are dropped together: the cheapest, if data arrive about in order."""
    INCREMENTAL = "incremental"
    """For tiers where much data is late: rows of mixed age are merged all the time."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One retention on one cluster. A dedicated cluster is a tier of its own, of the cluster's name."""

    name: str
    retention_seconds: int
    impressions_retention_seconds: int
    """For how long it is known that a user has seen a post. It may be changed at any time: rows carry their own end."""
    cluster: Cluster
    buckets: BucketHistory
    compaction: Compaction = Compaction.TIME_WINDOW

    @property
    def longest_seconds(self) -> int:
        """For how long anything of a moment is kept."""
        return max(self.retention_seconds, self.impressions_retention_seconds)


class KeyUse(StrEnum):
    """What an API key is good for. A write key stands in the source of web pages and apps, so it must read nothing."""

    WRITE = "write"
    READ = "read"


KEY_ID_LENGTH: Final = 12
"""Characters of a digest that name a key to people: 48 bits tell any keys of one registry apart."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key of a tenant; several of one use at a time let clients change over without a gap."""

    use: KeyUse
    digest: str
    """SHA-256 of the key, hexadecimal. A plain hash will do: our keys are 256 random bits, there is nothing to guess."""

    @property
    def id(self) -> str:
        """What lists and revocations call it."""
        return self.digest[:KEY_ID_LENGTH]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What one tenant may ask of one gateway process."""

    per_second: int
    burst: int
    """Taken at once by a tenant that has been quiet."""


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    tier: Tier
    enabled: bool = True
    schemas: Mapping[str, CompiledSchema] = field(default_factory=dict)
    """Checkers of `properties` by event name."""
    only_listed_events: bool = False
    """Whether an event name without an entry in `schemas` is refused."""
    keys: tuple[ApiKey, ...] = ()
    """What opens the tenant to the HTTP edge; none: it is closed."""
    rate: RateLimit | None = None
    """Events and reads over HTTP; None: not limited."""
    latest: tuple[str, ...] = ()
    """Names of events of which each user's newest is at hand."""


@dataclass(frozen=True, slots=True)
class Registry:
    """A valid registry document. Every cluster is used by exactly one tier: one table, one retention."""

    clusters: Mapping[str, Cluster]
    tiers: Mapping[str, Tier]
    """Tiers by name, dedicated clusters included."""
    tenants: Mapping[str, Tenant]

    def tier_of(self, cluster: str) -> Tier | None:
        """The tier whose events the cluster holds; None while nothing uses it."""
        return next((tier for tier in self.tiers.values() if tier.cluster.name == cluster), None)
