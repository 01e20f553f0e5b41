"""Which clusters a command is about, and as which tier's."""

from collections.abc import Sequence
from typing import Annotated

import typer

from eventstore.errors import ConfigurationError
from eventstore.replay.scope import on_cluster
from eventstore.tenancy import Registry, Tier

Clusters = Annotated[
    list[str] | None,
    typer.Option("--cluster", metavar="NAME", help="Only this cluster; may be repeated. Default: `all`."),
]
AsTier = Annotated[
    str | None,
    typer.Option("--as-tier", metavar="TIER", help="Take the cluster, which no tier uses yet, for one of this tier."),
]


def named_tiers(registry: Registry, names: Sequence[str] | None, as_tier: str | None = None) -> list[Tier]:
    """The tiers on the clusters named; None: every tier on its own.

    Raises:
        ConfigurationError: a name without a cluster, or a cluster without a tier where none is named.
        RefusedError: the cluster is another tier's.
    """
    if as_tier is not None:
        return _as_tier(registry, names or [], as_tier)
    if not names or "all" in names:
        return [*registry.tiers.values()]
    tiers = {tier.cluster.name: tier for tier in registry.tiers.values()}
    if unknown := [name for name in names if name not in tiers]:
        raise ConfigurationError(
            f"--cluster {unknown[0]}: expected a cluster that a tier uses ({', '.join(tiers) or 'none'}), got "
            + (
                "one that none uses; say with --as-tier whose events it is to hold"
                if unknown[0] in registry.clusters
                else "a name that is not in the registry"
            )
        )
    return [tiers[name] for name in dict.fromkeys(names)]


def _as_tier(registry: Registry, names: Sequence[str], as_tier: str) -> list[Tier]:
    tier = registry.tiers.get(as_tier)
    if tier is None:
        raise ConfigurationError(f"--as-tier: expected a tier ({', '.join(registry.tiers) or 'none'}), got {as_tier!r}")
    if not names or "all" in names:
        raise ConfigurationError(
            f"--as-tier {as_tier}: expected the cluster that is meant, got none; name it with --cluster"
        )
    return [on_cluster(registry, tier, name, "--cluster") for name in dict.fromkeys(names)]
