"""Nodes that die, freeze and return; a whole tier that is away."""

from collections.abc import Sequence

from tests.chaos.field import Field

CALM_SECONDS = 40.0
OUTAGE_SECONDS = 90.0
SHORT_SECONDS = 6.0
FROZEN_SECONDS = 20.0
OPENED = "circuit open: records of this cluster are diverted"


def node_killed(field: Field) -> None:
    """The only node of a cluster dies under load and returns; its circuit opens, the records go round by a retry topic."""
    field.start_workers(2)
    field.publish()
    for turn in field.times(2):
        field.wait_until_busy()
        field.kill_server("c1n")
        field.wait(lambda turn=turn: opened(field, "c1n") > turn, "the circuit to open")  # type: ignore[misc]
        field.servers.start("c1n")
        field.wait_until_drained()
    field.fault(f"single node SIGKILL x{field.kills}")
    field.healed()


def one_of_three(field: Field) -> None:
    """One of three nodes is killed, returns, then another: quorum holds, and nobody is to notice."""
    field.start_workers(2)
    field.publish()
    for node in ("c3n-2", "c3n-3"):
        field.wait_until_busy()
        field.kill_server(node)
        field.go_on(field.lasting(SHORT_SECONDS, FROZEN_SECONDS))
        field.servers.start(node)
        field.wait_for_replicas("c3n")
    field.fault("one of three nodes SIGKILL x2")
    field.healed()
    field.figures["diverted"] = field.diverted("c3n")


def two_of_three(field: Field) -> None:
    """No quorum: the circuit opens, records are diverted, and come home when the nodes are back."""
    field.start_workers(2)
    field.publish()
    field.wait_until_busy()
    field.kill_server("c3n-2")
    field.kill_server("c3n-3")
    field.wait(lambda: opened(field, "c3n") > 0, "the circuit to open")
    field.go_on(field.lasting(SHORT_SECONDS, FROZEN_SECONDS))
    _return(field, ("c3n-2", "c3n-3"))
    field.fault("two of three nodes SIGKILL")
    field.healed()
    assert field.diverted("c3n") > 0


def frozen_nodes(field: Field) -> None:
    """One of three nodes stops answering without closing a connection; then the only node of the other cluster."""
    field.start_workers(2)
    field.publish()
    seconds = field.lasting(SHORT_SECONDS, FROZEN_SECONDS)
    for node in ("c3n-3", "c1n"):
        field.wait_until_busy()
        field.servers.pause(node)
        field.go_on(seconds)
        field.servers.resume(node)
    field.wait_for_replicas("c3n")
    field.fault(f"SIGSTOP of c3n-3, then of c1n, {seconds:.0f} s each")
    field.healed()


def tier_away(field: Field) -> None:
    """One tier's cluster is dead while the other one works: its freshness must not move."""
    field.start_workers(2)
    field.publish()
    field.wait_until_busy()
    calm_from = field.now()
    field.go_on(field.lasting(SHORT_SECONDS, CALM_SECONDS))
    died = field.now()
    field.kill_server("c1n")
    field.wait(lambda: opened(field, "c1n") > 0, "the circuit to open")
    field.go_on(field.lasting(SHORT_SECONDS, OUTAGE_SECONDS))
    returned = field.now()
    field.servers.start("c1n")
    field.fault(f"a tier's cluster away for {returned - died:.0f} s")
    field.healed()
    calm = field.freshness.quantile_ms(0.99, calm_from, died)
    away = field.freshness.quantile_ms(0.99, died, returned)
    field.figures |= {"calm_p99_ms": round(calm), "away_p99_ms": round(away), "ratio": round(away / calm, 2)}
    assert field.diverted("c1n") > 0


def opened(field: Field, cluster: str) -> int:
    """How often workers opened a cluster's circuit."""
    return sum(line["cluster"] == cluster for line in field.world.log_lines(OPENED))


def _return(field: Field, nodes: Sequence[str]) -> None:
    for node in nodes:
        field.servers.start(node)
    field.wait_for_replicas("c3n")
