"""`eventstore circuits`: what is diverted, and what workers should do about a cluster that is in trouble."""

from typing import Annotated, Any

import typer

from eventstore.cli.console import AsJson, err, out, print_json, table
from eventstore.clock import now_ms
from eventstore.config import Settings, load_settings
from eventstore.errors import ConfigurationError
from eventstore.events.moment import rfc3339
from eventstore.ingest.circuit import Wanted
from eventstore.ingest.control import ControlTable, Order
from eventstore.registry import load_registry
from eventstore.stream.backlogs import Backlog, Backlogs

circuits = typer.Typer(
    name="circuits", help="Show and set what workers do with the records of a cluster in trouble.", no_args_is_help=True
)

Cluster = Annotated[str, typer.Argument(help="A cluster of the registry.")]

MEANINGS = {
    Wanted.OPEN: "every worker diverts its records from now on",
    Wanted.CLOSED: "every worker waits for it, however long it takes",
    Wanted.AUTO: "every worker decides by itself again",
}


def register(app: typer.Typer) -> None:
    app.add_typer(circuits)


@circuits.command("list")
def list_circuits(*, as_json: AsJson = False) -> None:
    """List clusters: what is wanted of their circuits, and how many records wait in their retry topics.

    The state itself is each worker's own: see the metric `eventstore_circuit_state` (0 closed, 1 half-open, 2 open).
    Records that wait are stored when the circuit has closed; those of a cluster that left the registry go where their
    tenants have gone.

    Examples:
    - `eventstore circuits list`
    - `eventstore circuits list --json`
    """
    settings = load_settings()
    clusters = load_registry(settings.registry).clusters
    with err.status("asking the brokers"):
        orders = _control(settings).read()
        waiting = Backlogs(settings.kafka, settings.topics, settings.worker.group).look()
    shown = [_circuit(name, orders.get(name), waiting.get(name), name in clusters) for name in {**clusters, **waiting}]
    if as_json:
        print_json(shown)
        return
    rows = (
        (c["cluster"], c["wanted"], c["since"] or "", "?" if c["waiting"] is None else f"{c['waiting']:,}", c["note"] or "")
        for c in shown
    )  # fmt: skip
    out.print(table("Circuits", ("cluster", "wanted", "since", "records waiting#", ""), rows))


@circuits.command("open")
def open_circuit(cluster: Cluster) -> None:
    """Divert a cluster's records on every worker until told otherwise: before its maintenance, say.

    Examples:
    - `eventstore circuits open es30`
    """
    _give(cluster, Wanted.OPEN)


@circuits.command("close")
def close_circuit(cluster: Cluster) -> None:
    """Have every worker wait for a cluster instead of diverting its records.

    However long it takes: other clusters' events then wait behind this one's. After `worker.chunk_timeout` the workers'
    liveness probes turn red; who restarts them on that loses nothing and gains nothing.

    Examples:
    - `eventstore circuits close es30`
    """
    _give(cluster, Wanted.CLOSED)


@circuits.command("auto")
def leave_to_itself(cluster: Cluster) -> None:
    """Leave a circuit to itself again: it opens when its cluster stands still, and closes when a probe goes through.

    Examples:
    - `eventstore circuits auto es30`
    """
    _give(cluster, Wanted.AUTO)


def _give(cluster: str, wanted: Wanted) -> None:
    settings = load_settings()
    control = _control(settings)
    with err.status("asking the brokers"):
        # an order for a cluster that has left the registry can still be taken back
        known = {*load_registry(settings.registry).clusters, *control.read()}
        if cluster not in known:
            raise ConfigurationError(
                f"{cluster}: expected a cluster of the registry, one of {', '.join(sorted(known))}"
            )
        control.give(cluster, Order(wanted, now_ms()))
    out.print(f"{cluster}: {wanted.value}: {MEANINGS[wanted]}", markup=False, soft_wrap=True)


def _control(settings: Settings) -> ControlTable:
    return ControlTable(settings.kafka, settings.topics.control)


def _circuit(name: str, order: Order | None, backlog: Backlog | None, in_registry: bool) -> dict[str, Any]:
    known = isinstance(backlog, int)
    note = None if in_registry else "not in the registry"
    if not known:
        note = "no retry topic" if backlog is None else str(backlog)
    return {
        "cluster": name,
        "wanted": Wanted.AUTO.value if order is None else order.wanted.value,
        "since": None if order is None else rfc3339(order.given_ms),
        "waiting": backlog if known else None,
        "in_registry": in_registry,
        "note": note,
    }
