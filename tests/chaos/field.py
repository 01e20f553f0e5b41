"""One scenario's field: topics, keyspaces, workers, a load and everything that watches them."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import yaml
from cassandra import ConsistencyLevel
from cassandra.cluster import Session
from cassandra.pool import Host
from cassandra.query import PreparedStatement
from confluent_kafka import KafkaException

from eventstore.clock import now_ms
from eventstore.errors import ConfigurationError
from eventstore.registry import load_registry
from eventstore.store.session import close, connect
from eventstore.stream.topics import retry_topic, retry_topics
from eventstore.tenancy import Cluster, Registry
from tests.benchmarks.watch import status_mb
from tests.chaos.evidence import Topics, gather, retentions_of
from tests.chaos.freshness import NOT_NOW, Freshness
from tests.chaos.load import Mix, Publisher, Record, records
from tests.chaos.oracle import Evidence, Verdict, judge
from tests.chaos.servers import CQL_PORT, DATACENTER, KAFKA_PORT, RING, SINGLE, Servers
from tests.stacks import RunningStack
from tests.world import World, own_world

BOOTSTRAP: Final = f"127.0.0.1:{KAFKA_PORT}"
RING_TENANTS: Final = ("shop", "forum")
SINGLE_TENANTS: Final = ("news", "games")
MARKERS: Final = {"c1n": "clock", "c3n": "watch"}
"""The tenant whose events tell a tier's freshness; of no load."""
TENANTS: Final[Mapping[str, Any]] = {
    **{name: {"tier": "t30"} for name in (*RING_TENANTS, MARKERS["c3n"])},
    **{name: {"tier": "t15"} for name in (*SINGLE_TENANTS, MARKERS["c1n"])},
    "closed": {"tier": "t15", "enabled": False},
}
EVERYBODY: Final = tuple((name, 1.0) for name in (*RING_TENANTS, *SINGLE_TENANTS))
WORKER: Final = {
    "EVENTSTORE_WORKER__SESSION_TIMEOUT": "6",
    "EVENTSTORE_WORKER__COMMIT_INTERVAL": "0.5",
    "EVENTSTORE_WORKER__IN_FLIGHT_RECORDS": "4000",
    "EVENTSTORE_WORKER__CHUNK_RECORDS": "500",
}
"""Small chunks and quick commits: more moments at which a fault can hurt."""
LONG_EVENTS: Final = 100_000
SAMPLE_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 0.25
SETTLE_SECONDS: Final = 300.0
BUSY_SECONDS: Final = 90.0
STOP_SECONDS: Final = 60.0


class Sample(NamedTuple):
    at: float
    """Seconds since the epoch."""
    lag: int | None
    """Records of the event topic; None: Kafka did not answer."""
    memory_mb: float
    """Of all workers."""


@dataclass(slots=True)
class Field:
    name: str
    servers: Servers
    world: World
    publisher: Publisher
    freshness: Freshness
    topics: Topics
    known_registry: Registry
    events: int
    rate: float
    is_long: bool
    """In the long suite, where faults are more and last longer."""
    kills: int = 0
    faults: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    healed_at: float | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    """What a scenario wants told beside the rest."""
    settled: bool = False
    homes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Where tenants' rows may be, if not only where the registry says."""

    # ---------------------------------------------------------------------------------------------------------- load

    def load(self, mix: Mix | None = None) -> Iterator[Record]:
        """Without end."""
        return records(mix or Mix(EVERYBODY), now_ms())

    def publish(self, load: Iterable[Record] | None = None) -> None:
        """In the background, at the field's rate, until it settles: as many as it should have, or as the faults last."""
        self.publisher.start(self.load() if load is None else load, self.events, self.rate)

    def times(self, often: int) -> range:
        """So often in the long suite; twice in the short one."""
        return range(often if self.is_long else min(often, 2))

    def lasting(self, short: float, long: float) -> float:
        """Seconds."""
        return long if self.is_long else short

    @staticmethod
    def now() -> float:
        """Seconds since the epoch."""
        return time.time()

    # ------------------------------------------------------------------------------------------------------- workers

    def start_worker(self, *options: str, **environment: str) -> "subprocess.Popen[bytes]":
        return self.world.start_worker(*options, **(WORKER | environment))

    def start_workers(self, count: int = 1, **environment: str) -> None:
        """Returns when each has partitions (there are four)."""
        before = self.assignments()
        started = [self.start_worker(**environment) for _ in range(count)]

        def begun() -> bool:
            assert all(worker.poll() is None for worker in started), f"a worker ended at once; see {self.world.log}"
            listening = len(self.world.log_lines("worker starting")) == len(self.world.workers)
            return listening and self.assignments() >= before + count

        self.wait(begun, f"{count} workers to begin")

    def assignments(self) -> int:
        """How often any worker was given partitions so far."""
        return len(self.world.log_lines("partitions assigned"))

    @property
    def workers(self) -> list["subprocess.Popen[bytes]"]:
        """Those that run."""
        return [worker for worker in self.world.workers if worker.poll() is None]

    def wait_for_log(self, event: str, count: int = 1) -> None:
        """Until workers have logged an event so often."""
        self.wait(lambda: len(self.world.log_lines(event)) >= count, f"{event!r} x{count}")

    def kill_worker(self, worker: "subprocess.Popen[bytes] | None" = None) -> None:
        """SIGKILL, the oldest unless one is named."""
        victim = worker or self.workers[0]
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        self.kills += 1

    def stop_worker(self, worker: "subprocess.Popen[bytes]") -> None:
        """SIGTERM; it must end well."""
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(STOP_SECONDS) == 0, f"a worker that was told to stop ended with {worker.returncode}"

    def stop_workers(self) -> None:
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        for worker in list(self.workers):
            assert worker.wait(STOP_SECONDS) == 0, f"a worker that was told to stop ended with {worker.returncode}"

    # -------------------------------------------------------------------------------------------------------- faults

    def kill_server(self, name: str) -> None:
        self.servers.kill(name)
        self.kills += 1

    def fault(self, what: str) -> None:
        self.faults.append(what)

    def set_circuit(self, cluster: str, wanted: str) -> None:
        """As an operator does."""
        command = [sys.executable, "-m", "eventstore", "circuits", wanted, cluster]
        subprocess.run(command, env=self.world.environment, check=True, capture_output=True)

    def healed(self) -> None:
        """From now on nothing is broken."""
        self.healed_at = time.time()

    def wait_until_busy(self) -> int:
        """Until work is being done that has not been committed; gives how many records are not."""
        seen = self._committed()

        behind = 0

        def busy() -> bool:
            nonlocal behind
            behind = self.lag()
            return behind > 0 and self._committed() > seen

        self.wait(busy, "work in progress")
        return behind

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = BUSY_SECONDS) -> None:
        """As `until`, but looks seldom: the machine has other things to do."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}; see {self.world.log}"
            time.sleep(LOOK_SECONDS)

    def go_on(self, seconds: float) -> None:
        """Let a fault, or calm, last."""
        time.sleep(seconds)

    def wait_until_drained(self) -> None:
        """Until nothing waits in the divert topics."""
        self.wait(lambda: self.topics.lag(self.divert_topics) == 0, "the divert topics to be drained", SETTLE_SECONDS)

    def diverted(self, cluster: str) -> int:
        """How many records ever went to a cluster's divert topic."""
        topic = retry_topic(self.world.settings.topics, cluster)
        return sum(self.topics.ends([topic]).values())

    def dead_letters(self) -> int:
        """How many records the dead-letter topic has."""
        return sum(self.topics.ends([self.world.settings.topics.dead_letters]).values())

    def wait_for_replicas(self, cluster: str) -> None:
        """Until every node of a cluster sees all others: only then may the next one die."""
        session = connect(self.registry.clusters[cluster])
        try:
            ask = session.prepare("SELECT uid FROM events LIMIT 1")
            ask.consistency_level = ConsistencyLevel.ALL
            for host in session.cluster.metadata.all_hosts():
                self.wait(lambda host=host: _answers(session, ask, host), f"{host} to see all replicas")  # type: ignore[misc]
        finally:
            close(session)

    def lag(self) -> int:
        """Records of the event topic and the divert topics that are not committed."""
        return self.topics.lag([self.world.settings.topics.events, *self.divert_topics])

    def _committed(self) -> int:
        return sum(self.topics.committed(self.world.settings.topics.events).values())

    # ---------------------------------------------------------------------------------------------------- the reckoning

    @property
    def registry(self) -> Registry:
        """As in force: the last one that was valid."""
        with suppress(ConfigurationError):
            self.known_registry = load_registry(self.world.registry)
        return self.known_registry

    @property
    def divert_topics(self) -> list[str]:
        names = retry_topics(self.world.settings.topics, self.registry.clusters)
        return [topic.name for topic in names]

    @property
    def clusters(self) -> list[Cluster]:
        return [tier.cluster for tier in self.registry.tiers.values()]

    def settle(self) -> None:
        """Until everything published is done with; then the workers stop. The second time: nothing is left to do."""
        if self.settled:
            return
        self.publisher.finish(self.events)
        self.freshness.quiet()
        assert self.workers, f"every worker has ended; see {self.world.log}"
        self.wait(lambda: self.lag() == 0, "the workers to catch up", SETTLE_SECONDS)
        self.wait(self.freshness.is_done, "the last marker", SETTLE_SECONDS)
        self.publisher.flush()
        self.stop_workers()
        self.settled = True

    def evidence(self) -> Evidence:
        topics = self.world.settings.topics
        return gather(self.topics, topics.events, topics.dead_letters, self.divert_topics, self.clusters)

    def judge(self, evidence: Evidence, *, complete: bool = True) -> Verdict:
        registry = self.registry
        homes = {name: (tenant.tier.cluster.name,) for name, tenant in registry.tenants.items()} | self.homes
        # copies: publishing may go on meanwhile
        plan, acknowledged = dict(self.publisher.plan), dict(self.publisher.acknowledged)
        retentions = retentions_of(registry)
        return judge(plan, acknowledged, homes, evidence, retentions, complete=complete)

    def check_prefix(self) -> None:
        """Right now, in the middle of everything: no commit may have passed a record that is not safe."""
        verdict = self.judge(self.evidence(), complete=False)
        assert verdict.holds, f"in mid flight: {verdict.examples}"

    @property
    def recovery_seconds(self) -> float | None:
        """From the end of the last fault until the group was less than a second of the load behind."""
        if self.healed_at is None:
            return None
        since = self.healed_at
        caught_up = (s.at for s in self.samples if s.at >= since and s.lag is not None and s.lag <= self.rate)
        return next((round(at - since, 1) for at in caught_up), None)

    def note_memory(self, since: float, to: float) -> None:
        """Of the workers: median of the span's second quarter, which knows everything once, and of its last quarter."""
        inside = [sample.memory_mb for sample in self.samples if since <= sample.at <= to]
        quarter = max(1, len(inside) // 4)
        early, late = median(inside[quarter : 2 * quarter + 1]), median(inside[-quarter:])
        self.figures |= {"memory_mb": late, "peak_mb": max(inside), "growth": f"{late / early - 1:+.1%}"}

    def sample(self, topics: Topics) -> None:
        try:
            lag = topics.lag([self.world.settings.topics.events])
        except (KafkaException, KeyError):
            lag = None
        memory = sum(status_mb(worker.pid, "VmRSS") or 0.0 for worker in self.workers)
        self.samples.append(Sample(time.time(), lag, round(memory, 1)))


def _answers(session: Session, ask: PreparedStatement, host: Host) -> bool:
    try:
        session.execute(ask, host=host)
    except NOT_NOW:
        return False
    return True


def group_of(world: World) -> Callable[[str], str]:
    """Which group reads a topic: the workers', or the drain of a cluster."""
    topics, group = world.settings.topics, world.settings.worker.group

    def tell(topic: str) -> str:
        cluster = topic.removeprefix(f"{topics.retry_prefix}.")
        return group if cluster == topic else f"{group}.retry.{cluster}"

    return tell


def base_registry() -> dict[str, Any]:
    def cluster(points: Sequence[str], replication: int) -> dict[str, Any]:
        return {
            "contact_points": list(points), "port": CQL_PORT, "datacenter": DATACENTER, "keyspace": "eventstore",
            "replication": replication,
        }  # fmt: skip

    return {
        "clusters": {"c3n": cluster(RING, 3), "c1n": cluster([SINGLE], 1)},
        "tiers": {
            "t30": {"retention": "30d", "cluster": "c3n", "buckets": [{"width": "10d"}]},
            "t15": {"retention": "15d", "cluster": "c1n", "buckets": [{"width": "5d"}]},
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a scenario asks of its field."""

    events: int
    rate: float
    """Events a second."""
    long: bool = False
    """In the long suite."""
    watched: str = "c1n"
    """The cluster whose freshness is measured: one that the scenario leaves alone."""
    tenants: Mapping[str, Any] = field(default_factory=lambda: TENANTS)


@contextmanager
def open_field(name: str, servers: Servers, terms: Terms) -> Iterator[Field]:
    """Everything for one scenario; afterwards all servers run, and nothing of it is left on them."""
    with tempfile.TemporaryDirectory(prefix="eventstore-chaos-") as scratch:
        folder = Path(scratch)
        base = folder / "base.yaml"
        base.write_text(yaml.safe_dump(base_registry() | {"tenants": {}}), "utf-8")
        with own_world(RunningStack(BOOTSTRAP, base), folder, dict(terms.tenants)) as world:
            registry = load_registry(world.registry)
            tier = next(t for t in registry.tiers.values() if t.cluster.name == terms.watched)
            publisher = Publisher(BOOTSTRAP, world.settings.topics.events)
            freshness = Freshness(publisher, MARKERS[terms.watched], tier)
            topics = Topics(BOOTSTRAP, group_of(world))
            opened = Field(
                name, servers, world, publisher, freshness, topics, registry, terms.events, terms.rate, terms.long
            )
            try:
                with _sampling(opened):
                    freshness.start()
                    yield opened
            finally:
                for worker in opened.workers:
                    with suppress(ProcessLookupError):
                        os.kill(worker.pid, signal.SIGCONT)
                publisher.end()
                servers.up()
                freshness.stop()
                topics.close()


@contextmanager
def _sampling(opened: Field) -> Iterator[None]:
    """Lag and memory, every SAMPLE_SECONDS, by a client and thread of their own."""
    end = threading.Event()

    def watch() -> None:
        topics = Topics(BOOTSTRAP, group_of(opened.world), patience=0.0)
        try:
            while not end.wait(SAMPLE_SECONDS):
                opened.sample(topics)
        finally:
            topics.close()

    thread = threading.Thread(target=watch, name="samples", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
