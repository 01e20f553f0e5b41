"""The embedded stack of benchmarks: a data directory and ports of its own, one Kafka, one CQL server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eventstore.config import LocalPurpose, Settings, load_settings
from eventstore.local import lifecycle
from eventstore.local.progress import Progress
from eventstore.local.stack import Stack
from eventstore.tenancy import Cluster, Registry

DIRECTORY = Path(__file__).parent.parent.parent / ".eventstore-bench"
KAFKA_PORT = 28_092
CLUSTER = Cluster(
    name="c30", contact_points=("127.0.2.1",), port=28_042, datacenter="dc1", keyspace="eventstore", replication=1
)


@contextmanager
def servers(progress: Progress) -> Iterator[tuple[str, Cluster]]:
    """(Kafka's address, the CQL cluster), running until the end of the block; they leave only their data directory."""
    stack = Stack(_settings(), Registry({CLUSTER.name: CLUSTER}, {}, {}))
    started = not lifecycle.running(DIRECTORY)
    if started:
        lifecycle.reset(DIRECTORY)  # what earlier runs left would be compacted during this one
    stack.up(progress)
    try:
        yield f"127.0.0.1:{KAFKA_PORT}", CLUSTER
    finally:
        if started:
            lifecycle.down(DIRECTORY, progress)


def _settings() -> Settings:
    local = {"kafka_port": KAFKA_PORT, "data_dir": DIRECTORY, "cassandra_memory_mb": 1024, "purpose": LocalPurpose.LOAD}
    return load_settings(local=local, kafka={"bootstrap_servers": f"127.0.0.1:{KAFKA_PORT}"})
