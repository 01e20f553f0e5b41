"""`eventstore erasures`: the erasures on record."""

from collections.abc import Iterable, Sequence

import msgspec
import typer

from eventstore.cli.clusters import AsTier, Clusters, named_tiers
from eventstore.cli.console import AsJson, err, out, print_json, progress, table
from eventstore.cli.erase import Execute, as_document, clock_rules, delete_everywhere, hint, known_holders
from eventstore.clock import now_ms
from eventstore.config import Settings, load_settings
from eventstore.errors import ExitCode
from eventstore.events.erasure import Erasure
from eventstore.events.moment import rfc3339
from eventstore.registry import load_registry
from eventstore.replay.erasure import outlived, reach
from eventstore.stream.erasures import ErasureTable
from eventstore.tenancy import Tier

erasures = typer.Typer(name="erasures", help="List, repeat and forget erasures of users.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(erasures)


@erasures.command("list")
def show(*, as_json: AsJson = False) -> None:
    """List the erasures on record.

    Examples:
    - `eventstore erasures list`
    - `eventstore erasures list --json`
    """
    settings = load_settings()
    with err.status("reading the erasures"):
        found = ErasureTable(settings.kafka, settings.topics.erasures).read()
    if as_json:
        print_json([as_document(erasure) for erasure in found])
    else:
        _print(found, f"{len(found):,} erasures")


@erasures.command()
def repeat(
    *, cluster: Clusters = None, as_tier: AsTier = None, execute: Execute = False, as_json: AsJson = False
) -> None:
    """Delete again what every erasure on record covers. A backup does not know of later erasures.

    Run it on the empty cluster before a backup is loaded, so that nobody reads an erased row even for a moment, and again
    after; `eventstore restore --execute` does both. By default on every cluster of a tier and on those that a replay on
    record has written; whoever names a cluster that no tier uses says with --as-tier whose events it holds.

    Examples:
    - `eventstore erasures repeat`
    - `eventstore erasures repeat --cluster es30 --execute`
    - `eventstore erasures repeat --cluster es30b --as-tier t30 --execute`
    """
    settings = load_settings()
    registry = load_registry(settings.registry)
    tiers = named_tiers(registry, cluster, as_tier) if cluster or as_tier else known_holders(settings, registry)
    done = repeat_on(settings, tiers, execute=execute)
    if as_json:
        print_json({"executed": execute, **msgspec.structs.asdict(done)})
    else:
        for name, count in done.partitions.items():
            told = f"failed: {done.failures[name]}" if name in done.failures else "deleted" if execute else "to delete"
            out.print(f"{name}: {count:,} partitions of {done.erasures:,} users {told}", markup=False, soft_wrap=True)
        hint(execute=execute)
    if done.failures:
        raise typer.Exit(ExitCode.FAILED)


class Repeated(msgspec.Struct, frozen=True):
    erasures: int
    """On record."""
    partitions: dict[str, int]
    """By cluster: what they cover there."""
    failures: dict[str, str]
    """Why a cluster has not deleted them."""


def repeat_on(settings: Settings, tiers: Sequence[Tier], *, execute: bool) -> Repeated:
    """Delete what every erasure on record covers on these tiers' clusters; without `execute` only count."""
    within = reach(tiers, now_ms(), clock_rules(settings))
    with err.status("reading the erasures"):
        found = ErasureTable(settings.kafka, settings.topics.erasures).read()
    partitions = {each.cluster.name: sum(len(each.doomed(erasure)) for erasure in found) for each in within}
    return Repeated(len(found), partitions, delete_everywhere(within, found) if execute else {})


@erasures.command()
def prune(*, execute: Execute = False, as_json: AsJson = False) -> None:
    """Forget erasures that no event can reach any more: their moment is older than every tier's retention.

    Such events are expired on arrival anyway, so the record of who was erased has served its purpose.

    Examples:
    - `eventstore erasures prune`
    - `eventstore erasures prune --execute`
    """
    settings = load_settings()
    registry = load_registry(settings.registry)
    records = ErasureTable(settings.kafka, settings.topics.erasures)
    with err.status("reading the erasures"):
        old = outlived(records.read(), registry, now_ms(), clock_rules(settings))
    if execute:
        with progress() as bars:
            for erasure in bars.track(old, description="forgetting"):
                records.forget(erasure)
    if as_json:
        print_json({"executed": execute, "erasures": [as_document(erasure) for erasure in old]})
    else:
        _print(old, f"{len(old):,} erasures {'forgotten' if execute else 'to forget'}")
        hint(execute=execute)


def _print(found: Iterable[Erasure], title: str) -> None:
    rows = ((e.tenant, e.uid, rfc3339(e.to_micros // 1_000), rfc3339(e.recorded_ms)) for e in found)
    out.print(table(title, ("tenant", "user", "erased up to", "recorded"), rows))
