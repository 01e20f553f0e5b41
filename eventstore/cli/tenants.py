"""`eventstore tenants`: the tenant registry, checked and shown."""

from pathlib import Path
from typing import Annotated, Any

import typer

from eventstore.cli.console import AsJson, complain, err, out, print_json, table
from eventstore.clock import now_ms
from eventstore.config import load_settings
from eventstore.errors import ConfigurationError, ExitCode, Problem, RegistryError
from eventstore.registry import load_registry
from eventstore.tenancy import Registry, Tenant, Tier, format_duration
from eventstore.tenancy.succession import succession_problems

tenants = typer.Typer(name="tenants", help="Check the tenant registry and show who is in it.", no_args_is_help=True)

File = Annotated[
    Path | None, typer.Argument(help="The registry; default: the one of the settings.", show_default=False)
]
Against = Annotated[
    Path | None, typer.Option("--against", metavar="OLD", help="Also check that it may follow this registry.")
]


def register(app: typer.Typer) -> None:
    app.add_typer(tenants)


@tenants.command()
def check(file: File = None, *, against: Against = None, as_json: AsJson = False) -> None:
    """Check a registry: every problem at once, each with its place and what was expected. Exit 2 if there is one.

    With --against, also what would lose sight of rows: bucket strategies that were changed, removed or appended too
    late (a new one must begin 24 hours ahead), a tier that moved to another cluster, a changed retention.

    Examples:
    - `eventstore tenants check`
    - `eventstore tenants check edited.yaml --against tenants.yaml`
    - `eventstore tenants check --json`
    """
    path = file or load_settings().registry
    try:
        registry = load_registry(path)
        _check_succession(path, registry, against)
    except RegistryError as error:
        if as_json:
            print_json({"registry": str(path), "valid": False, "problems": [_problem(p) for p in error.problems]})
        else:
            complain(error)
        raise typer.Exit(ExitCode.USAGE) from error
    unused = [name for name in registry.clusters if registry.tier_of(name) is None]
    if as_json:
        print_json({"registry": str(path), "valid": True, "unused_clusters": unused, **_counts(registry)})
        return
    for name in unused:
        err.print(f"warning: clusters.{name} is used by no tier", style="yellow")
    out.print(f"{path}: valid, " + ", ".join(f"{count} {what}" for what, count in _counts(registry).items()))


@tenants.command("list")
def list_tenants(*, as_json: AsJson = False) -> None:
    """List the tenants with their tier, retention and cluster.

    Examples:
    - `eventstore tenants list`
    - `eventstore tenants list --json | jq -r '.[] | select(.enabled | not) | .tenant'`
    """
    found = [_summary(tenant) for tenant in load_registry(load_settings().registry).tenants.values()]
    if as_json:
        print_json(found)
        return
    rows = ((t["tenant"], t["tier"], t["retention"], t["cluster"], "yes" if t["enabled"] else "no") for t in found)
    out.print(table("Tenants", ("tenant", "tier", "retention#", "cluster", "enabled"), rows))


@tenants.command()
def show(tenant: Annotated[str, typer.Argument(help="The tenant's name.")], *, as_json: AsJson = False) -> None:
    """Show one tenant: where its events live, for how long, and which of them are checked.

    A slower check takes about three times the CPU: the event's JSON Schema says more than a type can.

    Examples:
    - `eventstore tenants show shop`
    - `eventstore tenants show shop --json`
    """
    path = load_settings().registry
    found = load_registry(path).tenants.get(tenant)
    if found is None:
        raise ConfigurationError(
            f"tenant {tenant}: expected a tenant of {path}, found none of that name; see `eventstore tenants list`"
        )
    details = _details(found)
    if as_json:
        print_json(details)
        return
    out.print(table(f"Tenant {tenant}", ("what", "value"), ((key, _shown(value)) for key, value in details.items())))


def _check_succession(path: Path, registry: Registry, against: Path | None) -> None:
    if against is None:
        return
    if problems := succession_problems(load_registry(against), registry, now_ms()):
        raise RegistryError(str(path), problems)


def _problem(problem: Problem) -> dict[str, Any]:
    return {"path": problem.path, "line": problem.line, "expected": problem.expected}


def _counts(registry: Registry) -> dict[str, int]:
    return {"clusters": len(registry.clusters), "tiers": len(registry.tiers), "tenants": len(registry.tenants)}


def _summary(tenant: Tenant) -> dict[str, Any]:
    tier = tenant.tier
    return {
        "tenant": tenant.name,
        "tier": tier.name,
        "retention": format_duration(tier.retention_seconds),
        "impressions": format_duration(tier.impressions_retention_seconds),
        "cluster": tier.cluster.name,
        "enabled": tenant.enabled,
    }


def _details(tenant: Tenant) -> dict[str, Any]:
    cluster = tenant.tier.cluster
    return _summary(tenant) | {
        "contact_points": [f"{point}:{cluster.port}" for point in cluster.contact_points],
        "keyspace": cluster.keyspace,
        "buckets": _buckets(tenant.tier),
        "checked_events": sorted(tenant.schemas),
        "slower_checks": [f"{event}: {why}" for event, why in sorted(_untyped(tenant).items())],
        "other_events": "refuse" if tenant.only_listed_events else "allow",
        "latest": list(tenant.latest),
    }


def _untyped(tenant: Tenant) -> dict[str, str]:
    """Events whose schema says more than a type can, so that checking them takes about three times the CPU: and what it says."""
    return {event: schema.untyped for event, schema in tenant.schemas.items() if schema.untyped is not None}


def _buckets(tier: Tier) -> list[str]:
    return [
        f"{format_duration(strategy.width_ms // 1000)} from {strategy.begins}" for strategy in tier.buckets.strategies
    ]


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
