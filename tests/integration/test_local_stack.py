"""The embedded stack's own life, on ports and directories of its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from eventstore.config import Settings, load_settings
from eventstore.errors import LocalStackError
from eventstore.local import lifecycle, process
from eventstore.local.process import Process
from eventstore.local.stack import ServerStatus, Stack, State
from eventstore.store.session import connect
from eventstore.tenancy import Registry
from tests.builders import cluster

pytestmark = pytest.mark.integration

KAFKA_PORT = 28092
NODE = cluster("c15", contact_points=("127.0.3.1",), port=28042)
ROWS = 2_000


@dataclass(frozen=True)
class Own:
    data_dir: Path
    stack: Stack

    def process(self, name: str) -> Process:
        found = process.find(self.data_dir / name)
        assert found is not None
        return found


def settings(data_dir: Path, kafka_port: int = KAFKA_PORT) -> Settings:
    local = {"kafka_port": kafka_port, "data_dir": data_dir, "kafka_memory_mb": 200, "cassandra_memory_mb": 300}
    return load_settings(local=local, kafka={"bootstrap_servers": f"127.0.0.1:{kafka_port}"})


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    data_dir = tmp_path_factory.mktemp("stack")
    leave_half_a_first_start(data_dir)
    made = Own(data_dir, Stack(settings(data_dir), Registry(clusters={"c15": NODE}, tiers={}, tenants={})))
    made.stack.up()
    yield made
    lifecycle.down(data_dir)


def leave_half_a_first_start(data_dir: Path) -> None:
    """What a SIGKILL during the very first start can leave behind."""
    for cut in (
        data_dir / "kafka" / "data.new" / "meta.properties",
        data_dir / "c15" / "data" / "data" / "system" / "x",
    ):
        cut.parent.mkdir(parents=True)
        cut.write_text("half a li")


def pids(statuses: tuple[ServerStatus, ...]) -> dict[str, int | None]:
    assert {status.state for status in statuses} == {State.RUNNING}
    return {status.name: status.pid for status in statuses}


def write_rows() -> None:
    session = connect(NODE)
    try:
        session.execute(
            "CREATE KEYSPACE own WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 1} AND durable_writes = true"
        )
        session.execute("CREATE TABLE own.rows (k int PRIMARY KEY)")
        insert = session.prepare("INSERT INTO own.rows (k) VALUES (?)")
        for future in [session.execute_async(insert, (k,)) for k in range(ROWS)]:
            future.result()
    finally:
        session.cluster.shutdown()


def stored_rows() -> int:
    session = connect(NODE)
    try:
        return len(list(session.execute("SELECT k FROM own.rows")))
    finally:
        session.cluster.shutdown()


def write_records() -> None:
    servers = {"bootstrap.servers": f"127.0.0.1:{KAFKA_PORT}"}
    admin = AdminClient(servers)
    admin.create_topics([NewTopic("own", num_partitions=1)])["own"].result()
    producer = Producer(servers | {"acks": "all"})
    for number in range(ROWS):
        producer.produce("own", str(number).encode())
    assert producer.flush(20) == 0


def stored_records() -> int:
    consumer = Consumer({"bootstrap.servers": f"127.0.0.1:{KAFKA_PORT}", "group.id": "own"})
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition("own", 0), timeout=20)
        return int(high - low)
    finally:
        consumer.close()


def test_half_a_first_start_is_cleared_away(own: Own) -> None:
    assert not (own.data_dir / "kafka" / "data.new").exists()
    assert not (own.data_dir / "c15" / "data" / "data" / "system" / "x").exists()


def test_up_again_changes_nothing(own: Own) -> None:
    before = pids(own.stack.status())
    assert pids(own.stack.up()) == before


def test_status_tells_memory_data_and_version(own: Own) -> None:
    for status in own.stack.status():
        assert status.memory > 50 * 2**20
        assert status.data_size > 0
        assert status.version is not None


def test_acknowledged_rows_survive_a_kill_and_only_what_died_is_started_again(own: Own) -> None:
    before = pids(own.stack.status())
    write_rows()
    process.kill(own.process("c15"))
    after = pids(own.stack.up())
    assert stored_rows() == ROWS
    assert (after["kafka"] == before["kafka"], after["c15"] == before["c15"]) == (True, False)


def test_acknowledged_records_survive_a_kill(own: Own) -> None:
    write_records()
    process.kill(own.process("kafka"))
    own.stack.up()
    assert stored_records() == ROWS


def test_down_leaves_nothing_but_data_and_up_finds_them(own: Own) -> None:
    running = [pid for pid in pids(own.stack.status()).values() if pid]
    assert sorted(lifecycle.down(own.data_dir)) == ["c15", "kafka"]
    assert not [pid for pid in running if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
    assert not [path for path in own.data_dir.rglob("*") if path.name in {process.PROCESS_FILE, "tmp"}]
    own.stack.up()
    assert (stored_rows(), stored_records()) == (ROWS, ROWS)


def test_a_server_that_dies_at_its_start_tells_why_and_takes_the_others_along(tmp_path: Path) -> None:
    asked = settings(tmp_path, kafka_port=28192)
    lonely = cluster("c15", contact_points=("127.0.3.2",), port=28042)
    damaged = tmp_path / "kafka" / "data"
    damaged.mkdir(parents=True)
    (damaged / "meta.properties").write_text("version=1\ncluster.id=another\nnode.id=7\n")
    (damaged / "events-0").mkdir()
    stack = Stack(asked, Registry(clusters={"c15": lonely}, tiers={}, tenants={}))
    with pytest.raises(LocalStackError, match=r"kafka: expected it to start, it died: .*node.id.*; see .*server\.log"):
        stack.up()
    assert lifecycle.running(tmp_path) == {}
