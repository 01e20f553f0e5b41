"""Which servers the settings and the registry ask for, and where each of them stands."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eventstore.config import Settings
from eventstore.local.cassandra import CassandraNode
from eventstore.local.host import is_loopback
from eventstore.local.kafka import KafkaBroker
from eventstore.local.server import Server
from eventstore.tenancy import Cluster

KAFKA = "kafka"
BROKER_ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Layout:
    broker: KafkaBroker | None
    """None if the settings name a Kafka elsewhere."""
    nodes: dict[str, CassandraNode]
    """By cluster; clusters that differ only in their keyspace share a node, which has the first one's name."""

    def servers(self, clusters: Iterable[str]) -> tuple[Server, ...]:
        """The broker, and the nodes that these clusters need."""
        needed = dict.fromkeys(self.nodes[name] for name in clusters if name in self.nodes)
        return (*([self.broker] if self.broker else []), *needed)


def lay_out(settings: Settings, clusters: Iterable[Cluster]) -> Layout:
    """Places for the broker and all embedded clusters; the same clusters always get the same places."""
    port = settings.local.kafka_port
    directory = settings.local.data_dir.resolve()
    return Layout(_broker(settings, directory), _nodes(settings, directory, clusters, {port, port + 1}))


def is_embedded(cluster: Cluster) -> bool:
    """Whether the stack starts this cluster: all its contact points are this machine, and it asks for no TLS."""
    return cluster.tls is None and all(map(is_loopback, cluster.contact_points))


def _broker(settings: Settings, directory: Path) -> KafkaBroker | None:
    port = settings.local.kafka_port
    if settings.kafka.bootstrap_servers not in {f"{BROKER_ADDRESS}:{port}", f"localhost:{port}"}:
        return None
    return KafkaBroker(
        name=KAFKA, address=BROKER_ADDRESS, port=port, internal_port=port + 1,
        directory=directory / KAFKA, heap_mb=settings.local.kafka_memory_mb, purpose=settings.local.purpose,
    )  # fmt: skip


def _nodes(
    settings: Settings, directory: Path, clusters: Iterable[Cluster], brokers: set[int]
) -> dict[str, CassandraNode]:
    here = {cluster.name: (_address(cluster), cluster) for cluster in clusters if is_embedded(cluster)}
    taken = {(BROKER_ADDRESS, port) for port in brokers} | {(address, each.port) for address, each in here.values()}
    standing: dict[tuple[str, int], CassandraNode] = {}
    for name, (address, cluster) in here.items():
        if (address, cluster.port) in standing:
            continue
        internal = _free(address, cluster.port + 1, taken)
        management = _free(address, internal + 1, taken)
        standing[address, cluster.port] = CassandraNode(
            name=name, cluster=name, address=address, port=cluster.port, internal_port=internal,
            management_port=management, incremental_backups=settings.local.incremental_backups,
            seeds=(f"{address}:{internal}",), datacenter=cluster.datacenter,
            directory=directory / name, heap_mb=settings.local.cassandra_memory_mb, purpose=settings.local.purpose,
        )  # fmt: skip
    return {name: standing[address, cluster.port] for name, (address, cluster) in here.items()}


def _free(address: str, first: int, taken: set[tuple[str, int]]) -> int:
    """The first port that nobody has, which is then taken."""
    found = next(port for port in range(first, 65_536) if (address, port) not in taken)
    taken.add((address, found))
    return found


def _address(cluster: Cluster) -> str:
    point = cluster.contact_points[0]
    return "127.0.0.1" if point == "localhost" else point
