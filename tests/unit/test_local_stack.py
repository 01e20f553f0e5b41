"""Which servers the settings and the registry ask for, and what happens to their directories. Starts no server."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from eventstore.config import Settings, load_settings
from eventstore.errors import ConfigurationError, LocalStackError, RefusedError
from eventstore.local import lifecycle, process
from eventstore.local.cassandra import CassandraNode
from eventstore.local.stack import Stack, State
from eventstore.tenancy import Cluster, Registry, TlsFiles
from tests.builders import cluster

pytestmark = pytest.mark.unit

SLEEPER = "import time; print('up', flush=True); time.sleep(120)"


@dataclass
class Told:
    """What a step told about the servers."""

    states: list[tuple[str, str]] = field(default_factory=list)

    def fetching(self, files: int, size: int) -> None:
        raise AssertionError("nothing here downloads")

    def received(self, size: int) -> None:
        raise AssertionError("nothing here downloads")

    def server(self, name: str, state: str) -> None:
        self.states.append((name, state))


def settings(data_dir: Path, bootstrap_servers: str = "127.0.0.1:19092") -> Settings:
    return load_settings(
        local={"data_dir": data_dir, "kafka_port": 19092}, kafka={"bootstrap_servers": bootstrap_servers}
    )


def registry(*clusters: Cluster) -> Registry:
    return Registry(clusters={each.name: each for each in clusters}, tiers={}, tenants={})


def node(directory: Path) -> CassandraNode:
    return CassandraNode(
        name="es15", cluster="es15", address="127.0.0.1", port=19042, internal_port=19043, heap_mb=64,
        seeds=("127.0.0.1:19043",), datacenter="dc1", directory=directory / "es15",
    )  # fmt: skip


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """The data directory of a stack in which one marked process runs as server `es15`."""
    home = tmp_path / "es15"
    for directory in (home / "conf", home / "data", home / "tmp"):
        directory.mkdir(parents=True)
    (home / "data" / "rows").write_bytes(b"x" * 10_000)
    started = process.spawn(home, [sys.executable, "-c", SLEEPER, process.mark(home)])
    until(lambda: "up" in (home / process.LOG_FILE).read_text())
    yield tmp_path
    process.kill(started)


def until(holds: Callable[[], bool], within: float = 20.0) -> None:
    deadline = monotonic() + within
    while not holds():
        assert monotonic() < deadline
        Event().wait(0.01)


def test_there_is_a_broker_and_a_node_for_each_loopback_cluster(tmp_path: Path) -> None:
    here, there = (
        cluster("es15", contact_points=("127.0.0.2",), port=19042),
        cluster("far", contact_points=("10.0.0.1",)),
    )
    stack = Stack(settings(tmp_path), registry(here, there))
    assert [(server.name, server.address, server.port) for server in stack.servers] == [
        ("kafka", "127.0.0.1", 19092),
        ("es15", "127.0.0.2", 19042),
    ]
    assert [(found.name, found.address, found.state) for found in stack.external] == [
        ("far", "10.0.0.1:9042", State.EXTERNAL)
    ]


def test_another_kafka_is_used_as_it_is(tmp_path: Path) -> None:
    stack = Stack(settings(tmp_path, "kafka-1:9092,kafka-2:9092"), registry())
    assert not stack.servers
    assert [(found.name, found.address) for found in stack.external] == [("kafka", "kafka-1:9092,kafka-2:9092")]


def test_a_cluster_that_asks_for_tls_is_not_embedded(tmp_path: Path) -> None:
    secured = cluster("es15", tls=TlsFiles(ca=Path("ca.pem")))
    assert [found.name for found in Stack(settings(tmp_path), registry(secured)).external] == ["es15"]


def test_only_the_asked_clusters_are_started(tmp_path: Path) -> None:
    both = registry(cluster("a"), cluster("b", contact_points=("127.0.0.2",)))
    assert [server.name for server in Stack(settings(tmp_path), both, ["b"]).servers] == ["kafka", "b"]


def test_an_unknown_cluster_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--clusters: expected names from the registry \(a\), got z"):
        Stack(settings(tmp_path), registry(cluster("a")), ["z"])


def test_no_two_servers_of_one_address_share_a_port(tmp_path: Path) -> None:
    neighbours = [cluster(f"c{port}", port=port) for port in (19042, 19043, 19044, 19090, 19091)]
    servers = Stack(settings(tmp_path), registry(*neighbours)).servers
    ports = [port for server in servers for port in (server.port, *server.other_ports)]
    assert len(set(ports)) == len(ports) == 17


def test_clusters_that_differ_in_their_keyspace_share_a_server(tmp_path: Path) -> None:
    both = registry(cluster("a", keyspace="short"), cluster("b", keyspace="long"))
    assert [server.name for server in Stack(settings(tmp_path), both).servers] == ["kafka", "a"]
    assert [server.name for server in Stack(settings(tmp_path), both, ["b"]).servers] == ["kafka", "a"]


def test_a_server_keeps_its_place_whichever_clusters_are_asked_for(tmp_path: Path) -> None:
    three = registry(*(cluster(f"c{port}", port=port) for port in (19042, 19043, 19044)))
    every = Stack(settings(tmp_path), three).servers
    assert Stack(settings(tmp_path), three, ["c19044"]).servers == (every[0], every[3])


def test_nothing_runs_and_nothing_is_stored_before_the_first_start(tmp_path: Path) -> None:
    found = Stack(settings(tmp_path), registry(cluster("es15", port=1))).status()
    assert [(each.name, each.state, each.pid, each.data_size) for each in found] == [
        ("kafka", State.STOPPED, None, 0),
        ("es15", State.STOPPED, None, 0),
    ]


def test_a_first_start_that_was_cut_short_begins_anew(tmp_path: Path) -> None:
    server, told = node(tmp_path), Told()
    half = server.data / "data" / "system" / "local-1"
    half.mkdir(parents=True)
    lifecycle.prepare(server, (), told)
    assert not server.data.exists()
    assert told.states == [("es15", "first start was cut short before any data came: beginning anew")]


@pytest.mark.parametrize("kept_because", ["it answered before", "it holds a keyspace of the user"])
def test_data_are_never_thrown_away(tmp_path: Path, kept_because: str) -> None:
    server = node(tmp_path)
    (server.data / "data" / "system").mkdir(parents=True)
    if kept_because == "it answered before":
        (server.directory / lifecycle.INITIALISED).touch()
    else:
        (server.data / "data" / "eventstore").mkdir()
    lifecycle.prepare(server, (), Told())
    assert (server.data / "data" / "system").is_dir()


def test_a_stale_pid_file_is_told(tmp_path: Path) -> None:
    server, told = node(tmp_path), Told()
    server.directory.mkdir()
    (server.directory / process.PROCESS_FILE).write_text('{"pid": 999999999, "started": 1.0}')
    lifecycle.prepare(server, (), told)
    assert told.states == [("es15", "was process 999999999, which is gone")]


def test_a_directory_that_cannot_be_written_is_told_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "es15").write_text("a file")
    with pytest.raises(
        LocalStackError, match=r"es15: expected to write below .*; mend that, or set EVENTSTORE_LOCAL__DATA"
    ):
        lifecycle.prepare(node(tmp_path), (), Told())


def test_down_stops_what_runs_and_leaves_the_data(running: Path) -> None:
    assert lifecycle.down(running) == ("es15",)
    assert lifecycle.running(running) == {}
    assert sorted(path.name for path in (running / "es15").iterdir()) == ["conf", "data", process.LOG_FILE]
    assert lifecycle.down(running) == ()


def test_a_server_that_the_registry_no_longer_has_is_shown(running: Path) -> None:
    found = Stack(settings(running), registry(cluster("es30", port=1))).status()
    assert [(each.name, each.state) for each in found if each.pid] == [("es15", State.LEFT_OVER)]


def test_down_without_a_stack_does_nothing(tmp_path: Path) -> None:
    assert lifecycle.down(tmp_path / "never") == ()
    assert not (tmp_path / "never").exists()


def test_reset_is_refused_while_a_server_runs(running: Path) -> None:
    with pytest.raises(RefusedError, match="expected no server to run, found es15; run `eventstore local down` first"):
        lifecycle.reset(running)
    assert (running / "es15" / "data" / "rows").exists()


def test_reset_deletes_what_is_ours_and_nothing_else(running: Path) -> None:
    (running / "notes").mkdir()
    lifecycle.down(running)
    assert lifecycle.reset(running) >= 10_000
    assert [path.name for path in running.iterdir() if path.is_dir()] == ["notes"]


def test_the_most_telling_lines_of_a_dead_server_come_last(tmp_path: Path) -> None:
    server = node(tmp_path)
    server.directory.mkdir()
    server.log.write_text("ERROR of an earlier start\n")
    offset = server.log.stat().st_size
    with server.log.open("a") as file:
        file.write("INFO  starting\nERROR cannot start:   wrong datacenter\nINFO  bye\n")
    assert list(server.complaints(offset)) == ["ERROR cannot start: wrong datacenter"]
