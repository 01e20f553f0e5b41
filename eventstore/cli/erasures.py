"""`eventstore erasures`: the erasures on record."""

from collections.abc import Iterable
from typing import Annotated

import typer

from eventstore.cli.console import AsJson, err, out, print_json, progress, table
from eventstore.cli.erase import Execute, as_document, clock_rules, delete_everywhere, hint
from eventstore.config import load_settings
from eventstore.errors import ExitCode, QueryError
from eventstore.events.erasure import Erasure
from eventstore.events.moment import rfc3339
from eventstore.registry import load_registry, now_ms
from eventstore.replay.erasure import outlived, reach
from eventstore.stream.erasures import ErasureTable

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
    *,
    cluster: Annotated[
        list[str] | None,
        typer.Option("--cluster", metavar="NAME", help="Only on this cluster; may be repeated. Default: all."),
    ] = None,
    execute: Execute = False,
    as_json: AsJson = False,
) -> None:
    """Delete again what every erasure on record covers. Run it after every restore: a backup does not know of later erasures.

    Examples:
    - `eventstore erasures repeat`
    - `eventstore erasures repeat --cluster es30 --execute`
    """
    settings = load_settings()
    registry = load_registry(settings.registry)
    if unknown := sorted(set(cluster or ()) - set(registry.clusters)):
        raise QueryError(
            f"--cluster: expected clusters of the registry ({', '.join(registry.clusters)}), got {', '.join(unknown)}"
        )
    within = [e for e in reach(registry, now_ms(), clock_rules(settings)) if not cluster or e.cluster.name in cluster]
    with err.status("reading the erasures"):
        found = ErasureTable(settings.kafka, settings.topics.erasures).read()
    failures = delete_everywhere(within, found) if execute else {}
    partitions = {each.cluster.name: sum(len(each.doomed(erasure)) for erasure in found) for each in within}
    if as_json:
        print_json({"executed": execute, "erasures": len(found), "partitions": partitions, "failures": failures})
    else:
        for name, count in partitions.items():
            done = f"failed: {failures[name]}" if name in failures else "deleted" if execute else "to delete"
            out.print(f"{name}: {count:,} partitions of {len(found):,} users {done}", markup=False, soft_wrap=True)
        hint(execute=execute)
    if failures:
        raise typer.Exit(ExitCode.FAILED)


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
