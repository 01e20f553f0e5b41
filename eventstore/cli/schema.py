"""`eventstore schema`: each cluster's keyspace and tables, as the registry wants them and as they are."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, TypeAlias, TypeVar

import typer
from cassandra.cluster import Session

from eventstore.cli.clusters import AsTier, Clusters, named_tiers
from eventstore.cli.console import AsJson, complain, out, print_json, progress, table
from eventstore.config import load_settings
from eventstore.errors import EventstoreError, ExitCode
from eventstore.registry import load_registry
from eventstore.store.schema import Plan, apply_schema, plan_schema
from eventstore.store.session import close, connect
from eventstore.tenancy import Tier

schema = typer.Typer(name="schema", help="Plan, apply and check the clusters' schema.", no_args_is_help=True)

REQUEST_SECONDS = 30.0
"""Describing a schema on a cold node takes seconds."""
PARALLEL = 8
"""Clusters at the same time."""

Result = TypeVar("Result")
Results: TypeAlias = list[tuple[Tier, Result | EventstoreError]]
"""By tier, the registry's order."""
Told = Callable[[str], None]
"""Told what is being done, for the progress bar."""


def register(app: typer.Typer) -> None:
    app.add_typer(schema)


@schema.command("plan")
def show_plan(cluster: Clusters = None, *, as_tier: AsTier = None, as_json: AsJson = False) -> None:
    """Print the DDL that `apply` would run; change nothing. Exit 3 if something can only be changed by hand.

    Examples:
    - `eventstore schema plan`
    - `eventstore schema plan --cluster es15 > es15.cql`
    """
    plans = _each(cluster, as_tier, _plan)
    if as_json:
        _print_json(plans, _plan_json)
    else:
        _print(plans, lambda _, plan: _print_plan(plan))
    refused = any(plan.refusals for plan in _done(plans))
    _exit(plans, ExitCode.REFUSED if refused else ExitCode.DONE)


@schema.command("apply")
def apply_plan(cluster: Clusters = None, *, as_tier: AsTier = None, as_json: AsJson = False) -> None:
    """Create or alter keyspace and tables on all clusters at once, and wait until all their nodes agree.

    Safe to run again. Nothing is done on a cluster where something is refused (exit 3): another key or column type,
    another number of replicas, a shorter retention, bucket strategies that contradict those the rows were written
    under. The others are done. A cluster that no tier uses yet (one that stands in for another, say) is made with
    --as-tier as that tier's.

    Examples:
    - `eventstore schema apply`
    - `eventstore schema apply --cluster es15 --cluster es30 --json`
    - `eventstore schema apply --cluster es30b --as-tier t30`
    """
    applied = _each(cluster, as_tier, lambda session, tier, told: apply_schema(session, tier, progress=told))
    if as_json:
        _print_json(applied, lambda statements: {"statements": statements})
    else:
        _print(applied, _print_applied)
    _exit(applied)


@schema.command()
def check(cluster: Clusters = None, *, as_tier: AsTier = None, as_json: AsJson = False) -> None:
    """Report drift, column by column and option by option. Exit 1 if there is any that is to be changed.

    What is kept (a column of another version, a keyspace without tablets) is reported only.

    Examples:
    - `eventstore schema check`
    - `eventstore schema check --json | jq '.[].changes'`
    """
    plans = _each(cluster, as_tier, _plan)
    if as_json:
        _print_json(plans, _plan_json)
    else:
        _print(plans, lambda _, plan: _print_drift(plan))
    drifted = any(plan.drifted for plan in _done(plans))
    _exit(plans, ExitCode.FAILED if drifted else ExitCode.DONE)


def _plan(session: Session, tier: Tier, _: Told) -> Plan:
    return plan_schema(session, tier)


def _done(results: Results[Result]) -> list[Result]:
    return [result for _, result in results if not isinstance(result, EventstoreError)]


def _each(
    names: Sequence[str] | None, as_tier: str | None, work: Callable[[Session, Tier, Told], Result]
) -> Results[Result]:
    """The work done on every cluster that is named, at the same time; one's trouble stays its own."""
    settings = load_settings()
    tiers = named_tiers(load_registry(settings.registry), names, as_tier)
    with progress() as bars, ThreadPoolExecutor(PARALLEL) as pool:

        def on_cluster(tier: Tier) -> Result | EventstoreError:
            bar = bars.add_task(tier.cluster.name, total=1, note="connecting")
            try:
                session = connect(tier.cluster, request_timeout=REQUEST_SECONDS)
                try:
                    bars.update(bar, note="comparing")
                    return work(session, tier, lambda cql: bars.update(bar, note=_first_words(cql)))
                finally:
                    close(session)
            except EventstoreError as error:
                return error
            finally:
                bars.update(bar, advance=1, note="")

        return [*zip(tiers, pool.map(on_cluster, tiers), strict=True)]


def _first_words(cql: str) -> str:
    lines = (line for line in cql.splitlines() if not line.startswith("--"))
    return " ".join(next(lines, "").split()[:2]).lower()


def _print_plan(plan: Plan) -> None:
    """CQL that can be pasted; what is not CQL is a comment."""
    lines = [f"-- cluster {plan.tier.cluster.name} ({plan.server}), keyspace {plan.tier.cluster.keyspace}"]
    lines += [
        f"-- {change.action} {change.place}: wanted {change.wanted}, found {change.found}; {change.why}"
        for change in plan.changes
        if change.why
    ]
    lines += [f"{cql};" for cql in plan.statements] if not plan.refusals else []
    out.print("\n".join(lines if len(lines) > 1 else [*lines, "-- nothing to do"]), markup=False, soft_wrap=True)


def _print_applied(tier: Tier, statements: Sequence[str]) -> None:
    told = f"{', '.join(map(_first_words, statements))}; all nodes agree" if statements else "nothing to do"
    out.print(f"{tier.cluster.name}: {told}", markup=False, soft_wrap=True)


def _print_drift(plan: Plan) -> None:
    name, keyspace = plan.tier.cluster.name, plan.tier.cluster.keyspace
    if not plan.changes:
        out.print(f"{name}: keyspace {keyspace} on {plan.server} is as the registry wants it", markup=False)
        return
    rows = ((c.place, c.wanted, c.found, c.action, c.why) for c in plan.changes)
    columns = ("what", "wanted", "found", "apply would", "why")
    out.print(table(f"Drift of {name}, keyspace {keyspace}, {plan.server}", columns, rows))


def _plan_json(plan: Plan) -> dict[str, Any]:
    changes = [{key: value for key, value in asdict(change).items() if key != "cql"} for change in plan.changes]
    return {"server": str(plan.server), "changes": changes, "statements": [] if plan.refusals else plan.statements}


def _print(results: Results[Result], as_text: Callable[[Tier, Result], None]) -> None:
    for tier, result in results:
        if isinstance(result, EventstoreError):
            complain(result)
        else:
            as_text(tier, result)


def _print_json(results: Results[Result], as_json: Callable[[Result], dict[str, Any]]) -> None:
    print_json([
        {"cluster": tier.cluster.name, "keyspace": tier.cluster.keyspace}
        | ({"error": str(result)} if isinstance(result, EventstoreError) else as_json(result))
        for tier, result in results
    ])  # fmt: skip


def _exit(results: Results[Any], otherwise: ExitCode = ExitCode.DONE) -> None:
    """The most serious exit code of all clusters."""
    codes = [result.exit_code for _, result in results if isinstance(result, EventstoreError)]
    raise typer.Exit(max([*codes, otherwise]))
