"""The servers that chaos breaks: a stack of its own, whose every process can be killed, stopped for a while and started.

One Kafka; `c3n`, three Cassandra nodes in three racks with three replicas; `c1n`, one node. Kafka has a second listener
that tells its clients to come by a proxy.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from cassandra.cluster import Session

from eventstore.config import Settings, load_settings
from eventstore.local import lifecycle, process
from eventstore.local.artifacts import Cache, default_cache
from eventstore.local.cassandra import CassandraNode
from eventstore.local.kafka import KafkaBroker
from eventstore.local.lifecycle import INITIALISED
from eventstore.local.lockfile import load_lock
from eventstore.local.progress import SILENT
from eventstore.local.server import Server
from tests.waiting import until

DIRECTORY = Path(__file__).parent.parent.parent / ".eventstore-chaos"
KAFKA_PORT = 31_092
"""Like the others below those that clients' connections are given: one of them might have it when a server comes back, or, trying to
connect to a server that is away, meet itself."""
PROXIED_PORT = 31_094
CQL_PORT = 31_042
DATACENTER = "dc1"
RING = ("127.0.2.1", "127.0.2.2", "127.0.2.3")
SINGLE = "127.0.2.4"
PROXY_ADDRESS = "127.0.2.9"
"""Where proxies listen, at the ports of the servers behind them."""
START_SECONDS = 180.0
START_ATTEMPTS = 5
STOP_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosBroker(KafkaBroker):
    """A broker with a second listener whose clients are told to come to the proxy's address."""

    def _settings(self, data: Path) -> dict[str, str | int]:
        found = KafkaBroker._settings(self, data)
        found["listeners"] = f"{found['listeners']},PROXIED://{self.address}:{PROXIED_PORT}"
        found["advertised.listeners"] = f"{found['advertised.listeners']},PROXIED://{PROXY_ADDRESS}:{PROXIED_PORT}"
        found["listener.security.protocol.map"] = f"{found['listener.security.protocol.map']},PROXIED:PLAINTEXT"
        found["inter.broker.listener.name"] = "PLAINTEXT"
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosNode(CassandraNode):
    """A node that can tell its clients to come to another address."""

    advertised: str | None = None

    def _settings(self) -> dict[str, Any]:
        found = CassandraNode._settings(self)
        return found if self.advertised is None else found | {"broadcast_rpc_address": self.advertised}


@dataclass(frozen=True, slots=True)
class Servers:
    """By name: `kafka`, `c3n-1`, `c3n-2`, `c3n-3`, `c1n`."""

    all: dict[str, Server]
    cache: Cache

    RING_NODES: ClassVar[tuple[str, ...]] = ("c3n-1", "c3n-2", "c3n-3")

    def up(self) -> None:
        """Have every server running and answering, the nodes of one cluster one after the other."""
        lock = load_lock()
        wanted = {artifact for server in self.all.values() for artifact in lock[server.distribution].needed_here()}
        self.cache.ensure(sorted(wanted, key=str))
        for name in self.all:
            self.resume(name)
            self.start(name)

    def down(self) -> None:
        for name in self.all:
            self.resume(name)  # a stopped process does not hear that it should end
        lifecycle.down(DIRECTORY)

    def start(self, name: str) -> None:
        """Start one that is not running; returns when it answers."""
        server = self.all[name]
        for attempt in range(START_ATTEMPTS):
            self._spawn(server)
            if self._comes_up(server):
                (server.directory / INITIALISED).touch()
                return
            if attempt + 1 < START_ATTEMPTS:  # a client may have caught its port as the source of a connection
                time.sleep(1.0)
        raise AssertionError(f"{name} died {START_ATTEMPTS} times while starting; see {server.log}")

    def _spawn(self, server: Server) -> None:
        if process.find(server.directory) is None:
            artifacts = load_lock()[server.distribution].needed_here()
            class_path = tuple(map(self.cache.path, artifacts))
            lifecycle.prepare(server, class_path, SILENT)
            process.spawn(server.directory, server.command(class_path))

    def _comes_up(self, server: Server) -> bool:
        """False if it died."""
        until(
            lambda: server.answers() or process.find(server.directory) is None, f"{server.name} to answer",
            START_SECONDS,
        )  # fmt: skip
        return process.find(server.directory) is not None

    @contextmanager
    def advertised(self, name: str, address: str) -> Iterator[None]:
        """A node restarted so that its clients are told to come to this address; restarted once more afterwards."""
        plain = self.all[name]
        assert isinstance(plain, ChaosNode)
        self._restart(replace(plain, advertised=address))
        try:
            yield
        finally:
            self._restart(plain)

    def _restart(self, server: Server) -> None:
        process.stop(self._found(server.name), STOP_SECONDS)
        self.all[server.name] = server
        self.start(server.name)

    def kill(self, name: str) -> None:
        """SIGKILL; returns when it is gone."""
        process.kill(self._found(name))

    def pause(self, name: str) -> None:
        """SIGSTOP: its connections stay, and nobody answers."""
        os.kill(self._found(name).pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        if found := process.find(self.all[name].directory):
            os.kill(found.pid, signal.SIGCONT)

    def _found(self, name: str) -> process.Process:
        found = process.find(self.all[name].directory)
        assert found is not None, f"{name}: expected it to run"
        return found


def servers() -> Servers:
    """The servers, as they stand."""
    ring = [_node(f"c3n-{number}", "c3n", address, f"r{number}") for number, address in enumerate(RING, 1)]
    broker = ChaosBroker(
        name="kafka", address="127.0.0.1", port=KAFKA_PORT, internal_port=KAFKA_PORT + 1,
        directory=DIRECTORY / "kafka", heap_mb=384,
    )  # fmt: skip
    every: list[Server] = [broker, *ring, _node("c1n", "c1n", SINGLE, "r1")]
    local = settings().local
    return Servers(
        {server.name: server for server in every}, Cache(local.cache_dir or default_cache(), local.maven_repository)
    )


def _node(name: str, cluster: str, address: str, rack: str) -> ChaosNode:
    seed = RING[0] if cluster == "c3n" else address
    return ChaosNode(
        name=name, cluster=cluster, address=address, port=CQL_PORT, internal_port=CQL_PORT + 1, rack=rack,
        seeds=(f"{seed}:{CQL_PORT + 1}",), datacenter=DATACENTER, directory=DIRECTORY / name, heap_mb=384,
    )  # fmt: skip


def settings() -> Settings:
    return load_settings(kafka={"bootstrap_servers": f"127.0.0.1:{KAFKA_PORT}"})


def wait_for_ring(session: Session) -> None:
    """Until the driver's node sees all three alive: a write at quorum just after a return may else be refused."""
    until(lambda: len(list(session.execute("SELECT peer FROM system.peers_v2"))) == len(RING) - 1, "three nodes", 120)


@contextmanager
def running_servers(*, keep: bool) -> Iterator[Servers]:
    """All servers up; stopped at the end of the block unless they are to be kept for the next."""
    found = servers()
    DIRECTORY.mkdir(exist_ok=True)
    with lifecycle.locked(DIRECTORY / "run"):
        try:
            found.up()
            yield found
        finally:
            if not keep:
                found.down()
