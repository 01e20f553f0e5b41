"""Three ways to have real servers for tests, chosen by `EVENTSTORE_STACK`.

- `local` (default): the embedded stack, on ports of its own, shared by all test runs of this checkout.
- `containers`: ScyllaDB and Kafka images through testcontainers. Needs a container engine; where it was written there
  was none, so it has only been type-checked.
- `external`: servers that run already, named by `EVENTSTORE_KAFKA__BOOTSTRAP_SERVERS` and `EVENTSTORE_REGISTRY`.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from time import monotonic

from eventstore.config import Settings, load_settings
from eventstore.tenancy import Registry
from tests.builders import cluster

REPOSITORY = Path(__file__).parent.parent
KAFKA_PORT = 29092
CQL_PORT = 29042
ADDRESSES = {"c15": "127.0.1.1", "c30": "127.0.1.2"}
REGISTRY = """\
clusters:
  c15: {{contact_points: [{c15}], port: {c15_port}, datacenter: {datacenter}, keyspace: eventstore, replication: 1}}
  c30: {{contact_points: [{c30}], port: {c30_port}, datacenter: {datacenter}, keyspace: eventstore, replication: 1}}
tiers:
  t15: {{retention: 15d, cluster: c15, buckets: [{{width: 5d}}]}}
  t30: {{retention: 30d, cluster: c30, buckets: [{{width: 10d}}]}}
tenants:
  shop: {{tier: t30}}
  forum: {{tier: t15}}
"""


@dataclass(frozen=True, slots=True)
class RunningStack:
    bootstrap_servers: str
    registry_path: Path
    """A registry of two single-node clusters: `c15` (tier t15, 15 days) and `c30` (tier t30, 30 days)."""


@contextmanager
def running_stack() -> Iterator[RunningStack]:
    """The servers that `EVENTSTORE_STACK` asks for, until the end of the block."""
    kinds = {"local": _local, "containers": _containers, "external": _external}
    asked = os.environ.get("EVENTSTORE_STACK", "local")
    if asked not in kinds:
        raise ValueError(f"EVENTSTORE_STACK: expected one of {', '.join(kinds)}, got {asked!r}")
    with kinds[asked]() as stack:
        yield stack


@contextmanager
def _local() -> Iterator[RunningStack]:
    from eventstore.local import lifecycle  # noqa: PLC0415 — only this kind needs the extra `local`
    from eventstore.local.stack import Stack  # noqa: PLC0415

    directory = REPOSITORY / ".eventstore-test"
    directory.mkdir(exist_ok=True)
    ours = directory / "started-by-tests"
    with (directory / "users.lock").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)  # every test run that uses the stack holds it
        if not lifecycle.running(directory):
            ours.touch()
        Stack(_settings(directory), _registry()).up()
        points: dict[str, str | int] = {"c15_port": CQL_PORT, "c30_port": CQL_PORT, "datacenter": "dc1", **ADDRESSES}
        yield RunningStack(f"127.0.0.1:{KAFKA_PORT}", _write_registry(directory / "tenants.yaml", points))
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another run goes on with it and will stop it
        if ours.exists():
            lifecycle.down(directory)
            ours.unlink()


def _settings(directory: Path) -> Settings:
    local = {"kafka_port": KAFKA_PORT, "data_dir": directory, "kafka_memory_mb": 256, "cassandra_memory_mb": 384}
    return load_settings(local=local, kafka={"bootstrap_servers": f"127.0.0.1:{KAFKA_PORT}"})


def _registry() -> Registry:
    """Only where the clusters are: the stack asks for nothing more."""
    clusters = {name: cluster(name, contact_points=(address,), port=CQL_PORT) for name, address in ADDRESSES.items()}
    return Registry(clusters=clusters, tiers={}, tenants={})


@contextmanager
def _external() -> Iterator[RunningStack]:
    settings = load_settings()
    yield RunningStack(settings.kafka.bootstrap_servers, settings.registry)


@contextmanager
def _containers() -> Iterator[RunningStack]:
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 — only this kind needs them
    from testcontainers.kafka import KafkaContainer  # noqa: PLC0415

    with ExitStack() as running:
        kafka = running.enter_context(KafkaContainer().with_kraft())
        points: dict[str, str | int] = {"datacenter": "datacenter1"}
        for name in ADDRESSES:
            node = DockerContainer("scylladb/scylla:2025.1").with_exposed_ports(9042)
            node = running.enter_context(
                node.with_command("--smp 1 --memory 750M --overprovisioned 1 --developer-mode 1")
            )
            points |= {name: node.get_container_host_ip(), f"{name}_port": int(node.get_exposed_port(9042))}
            _wait_for_cql(str(points[name]), int(points[f"{name}_port"]))
        scratch = Path(running.enter_context(TemporaryDirectory(prefix="eventstore-test-")))
        yield RunningStack(kafka.get_bootstrap_server(), _write_registry(scratch / "tenants.yaml", points))


def _wait_for_cql(host: str, port: int, within: float = 180.0) -> None:
    from eventstore.local.probe import speaks_cql  # noqa: PLC0415 — only where the extra `local` is installed

    deadline = monotonic() + within
    while not speaks_cql(host, port):
        if monotonic() > deadline:
            raise TimeoutError(f"{host}:{port}: expected a CQL server within {within:g} s, got no answer")
        Event().wait(0.2)


def _write_registry(path: Path, points: Mapping[str, str | int]) -> Path:
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(REGISTRY.format(**points))
    return fresh.replace(path)
