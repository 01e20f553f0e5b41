"""Every scenario by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.chaos.field import LONG_EVENTS, TENANTS, Field, Terms
from tests.chaos.scenarios import edge, inputs, kafka, network, operations, process, store, tenancy

SHORT_EVENTS: Final = 8_000
SHORT_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    row: str
    """Of the faults that the fleet must survive."""
    run: Callable[[Field], None]
    seconds: float = 50.0
    """Over which the events of a long run are spread."""
    watched: str = "c1n"
    short: bool = False
    """Whether it is in the short suite, too."""
    tenants: Mapping[str, Any] = field(default_factory=lambda: TENANTS)

    def terms(self, events: int) -> Terms:
        if events < LONG_EVENTS:
            return Terms(events=events, rate=events / SHORT_SECONDS, watched=self.watched, tenants=self.tenants)
        return Terms(events=events, rate=events / self.seconds, long=True, watched=self.watched, tenants=self.tenants)


def _edge(run: Callable[[Field], None]) -> Scenario:
    return Scenario(row="Edge", run=run, seconds=100, tenants=edge.WITH_KEYS)


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "sigkill": Scenario(row="Process", run=process.sigkill_in_mid_batch, short=True),
    "sigterm": Scenario(row="Process", run=process.rolling_sigterm),
    "zombie": Scenario(row="Process", run=process.zombie),
    "all-killed": Scenario(row="Process", run=process.all_killed),
    "scaling": Scenario(row="Process", run=process.scaling),
    "broker-killed": Scenario(row="Kafka", run=kafka.broker_killed, short=True),
    "broker-gone": Scenario(row="Kafka", run=kafka.broker_gone, seconds=90),
    "gateway-kafka-killed": _edge(edge.kafka_killed),
    "gateway-killed": _edge(edge.gateway_killed),
    "node-killed": Scenario(row="Store", run=store.node_killed, watched="c3n"),
    "one-of-three": Scenario(row="Store", run=store.one_of_three, watched="c3n", seconds=100),
    "two-of-three": Scenario(row="Store", run=store.two_of_three),
    "frozen-nodes": Scenario(row="Store", run=store.frozen_nodes),
    "tier-away": Scenario(row="Store", run=store.tier_away, watched="c3n", seconds=200),
    "network-store": Scenario(row="Network", run=network.between_worker_and_store, watched="c3n", seconds=100),
    "network-kafka": Scenario(row="Network", run=network.between_worker_and_kafka, seconds=100),
    "bad-input": Scenario(row="Input", run=inputs.all_kinds),
    "all-invalid": Scenario(row="Input", run=inputs.nothing_but_bad),
    "loud-tenant": Scenario(row="Tenancy", run=tenancy.loud_tenant),
    "registry": Scenario(row="Tenancy", run=tenancy.registry_edits),
    "backlog": Scenario(row="Operations", run=operations.backlog),
    "open-circuit": Scenario(row="Operations", run=operations.open_circuit, watched="c3n", seconds=90),
    "replay": Scenario(row="Operations", run=operations.truncated_and_replayed, watched="c3n", seconds=90),
    "range-gone": Scenario(row="Operations", run=operations.range_gone),
}
