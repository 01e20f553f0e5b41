"""The disaster drill: `make drill`. A cluster is lost with its disks and comes back, twice: from a backup, and from Kafka alone.

Every step is the command that docs/disaster-recovery.md tells an operator to run. The reckoning is the oracle's, which
shares no code with the ingest path: what Kafka acknowledged against the rows that are there.
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
import yaml

from eventstore.cli.console import err, out, table
from eventstore.clock import now_ms
from eventstore.config import Settings, load_settings
from eventstore.local import lifecycle, process
from eventstore.registry import load_registry
from eventstore.stream.backlogs import drain_group
from eventstore.stream.topics import retry_topics
from tests.chaos.evidence import Topics, gather, retentions_of
from tests.chaos.load import Mix, Publisher, records
from tests.chaos.oracle import Fate, Verdict, judge
from tests.waiting import until
from tests.world import World

DIRECTORY: Final = Path(__file__).parent.parent.parent / ".eventstore-drill"
KAFKA_PORT: Final = 30_092
"""Below the ports that clients' connections are given: one of them might have it when a server comes back."""
CQL_PORT: Final = 30_042
ADDRESS: Final = "127.0.3.1"
CLUSTER: Final = "es30"
TENANTS: Final = ("shop", "forum")
ERASED: Final = ("shop", "u7")
GROUP: Final = "eventstore"
WAIT_SECONDS: Final = 300.0
LONG_EVENTS: Final = 60_000
SHORT_EVENTS: Final = 6_000
SHARES: Final = 6
"""Parts in which the events are published: two before the first disaster, one during it, and again."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(slots=True)
class Recovery:
    """One disaster and its end."""

    name: str
    acknowledged: int
    """Events that Kafka had confirmed by the end."""
    verdict: Verdict
    unverified: int
    """Records that `replay verify` found missing or different."""
    steps: dict[str, float] = field(default_factory=dict)
    """Seconds of each, from the kill on."""

    @property
    def passed(self) -> bool:
        return self.verdict.holds and not self.unverified


@dataclass(slots=True)
class Drill:
    world: World
    publisher: Publisher
    share: int
    """Events of one part."""
    load: Iterator[Any]
    topics: Topics

    def publish(self) -> None:
        """One part of the events, as fast as Kafka takes them; erased users' are expected to be left out."""
        self.publisher.publish(itertools.islice(self.load, self.share))

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """One part of the events while something else happens."""
        background = threading.Thread(target=self.publish)
        background.start()
        try:
            yield
        finally:
            background.join()

    def eventstore(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
        """Run a command as an operator would; gives the last line that it prints as JSON, if it does."""
        done = subprocess.run(
            [sys.executable, "-m", "eventstore", *arguments], env=self.world.environment, cwd=self.world.folder,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode in codes, (
            f"eventstore {' '.join(arguments)}: {done.returncode}: {done.stdout}{done.stderr}"
        )
        return json.loads(done.stdout.splitlines()[-1]) if "--json" in arguments else None

    def lose_the_cluster(self) -> None:
        """SIGKILL, and its disk is gone."""
        home = self.world.settings.local.data_dir / CLUSTER
        found = process.find(home)
        assert found is not None, "expected the cluster to run"
        process.kill(found)
        shutil.rmtree(home / "data")

    def wait_until_done(self) -> None:
        """Until every record is acknowledged, those of the retry topic too."""
        read = [self.world.settings.topics.events, *self.retries]
        until(lambda: self.topics.lag(read) == 0, f"all records to be done with; see {self.world.log}", WAIT_SECONDS)

    @property
    def retries(self) -> list[str]:
        return [topic.name for topic in retry_topics(self.world.settings.topics, [CLUSTER])]

    def judge(self) -> Verdict:
        topics = self.world.settings.topics
        registry = load_registry(self.world.registry)
        evidence = gather(self.topics, topics.events, topics.dead_letters, self.retries, registry.clusters.values())
        homes = dict.fromkeys(TENANTS, (CLUSTER,))
        return judge(self.publisher.plan, self.publisher.acknowledged, homes, evidence, retentions_of(registry))

    def erase(self) -> None:
        """A user between backup and disaster: the backup still has the rows."""
        tenant, uid = ERASED
        erased = self.eventstore("erase", tenant, uid, "--execute", "--json")["erasure"]["to_micros"]
        for number, expected in self.publisher.plan.items():
            if (expected.tenant, expected.uid) == ERASED and expected.ts_ms * 1_000 <= erased:
                self.publisher.plan[number] = expected._replace(fate=Fate.ERASED)

    def recover(self, name: str, *steps: tuple[str, Callable[[], object]]) -> Recovery:
        """Lose the cluster while events come in, then take the steps, and reckon."""
        took: dict[str, float] = {}
        with self.publishing():
            self.lose_the_cluster()
            for step, work in (
                ("divert its events", lambda: self.eventstore("circuits", "open", CLUSTER)),
                ("start an empty cluster", lambda: self.eventstore("local", "up")),
                ("create the schema", lambda: self.eventstore("schema", "apply", "--cluster", CLUSTER)),
                *steps,
            ):
                took[step] = _seconds(work)
        self._expect_the_erased()
        took["bring diverted events home"] = _seconds(self._bring_home)
        begun = time.monotonic()
        # 1 is its answer if anything is not as it must be
        verified = self.eventstore("replay", "verify", "--from-earliest", "--to-latest", "--json", codes=(0, 1))
        took["verify every event"] = time.monotonic() - begun
        return Recovery(name, len(self.publisher.acknowledged), self.judge(), verified["wrong"], took)

    def _bring_home(self) -> None:
        self.eventstore("circuits", "auto", CLUSTER)
        self.wait_until_done()

    def _expect_the_erased(self) -> None:
        """Whatever came in meanwhile of the erased user lies before the erasure: the load's times end when it begins."""
        for number, expected in self.publisher.plan.items():
            if (expected.tenant, expected.uid) == ERASED and expected.fate is Fate.STORED:
                self.publisher.plan[number] = expected._replace(fate=Fate.ERASED)


def from_a_backup(drill: Drill) -> Recovery:
    """Snapshot with mark while events come in; increments; an erasure; disaster; restore and replay from the mark."""
    drill.publish()
    drill.wait_until_done()
    with drill.publishing():
        drill.eventstore("backup", "--cluster", CLUSTER)
    mark = drill.eventstore("backup", "--cluster", CLUSTER, "--increment", "--name", "last-increment", "--json")["name"]
    drill.publish()
    drill.wait_until_done()
    drill.erase()
    return drill.recover(
        "from a backup",
        ("load snapshot and increments, repeat erasures", lambda: drill.eventstore("restore", mark, "--execute")),
        ("replay from the mark", lambda: _replay(drill, "--from-mark", mark)),
    )


def from_kafka_alone(drill: Drill) -> Recovery:
    """No backup at all."""
    drill.publish()
    drill.wait_until_done()
    return drill.recover("from Kafka alone", ("replay everything", lambda: _replay(drill, "--from-earliest")))


def _replay(drill: Drill, *start: str) -> None:
    drill.eventstore("replay", "run", *start, "--cluster", CLUSTER, "--execute", "--json")


def _seconds(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


@contextmanager
def open_drill(folder: Path, events: int) -> Iterator[Drill]:
    """Servers of its own from empty directories, topics, a schema and a worker; afterwards nothing of it is left."""
    world = World(folder, *_settings(folder))
    publisher = Publisher(world.settings.kafka.bootstrap_servers, world.settings.topics.events)
    load = records(Mix(tuple((name, 1.0) for name in TENANTS)), now_ms())
    try:
        topics = Topics(world.settings.kafka.bootstrap_servers, lambda topic: _group_of(world.settings, topic))
        drill = Drill(world, publisher, events // SHARES, load, topics)
        for command in (("local", "up"), ("topics", "apply"), ("schema", "apply")):
            drill.eventstore(*command)
        world.start_worker()
        world.wait_for_log("partitions assigned")
        yield drill
        topics.close()
    finally:
        for worker in world.workers:
            worker.terminate()
            worker.wait(60)
        lifecycle.down(world.settings.local.data_dir)


def _group_of(settings: Settings, topic: str) -> str:
    return GROUP if topic == settings.topics.events else drain_group(GROUP, CLUSTER)


def _settings(folder: Path) -> tuple[Settings, dict[str, str]]:
    registry = folder / "tenants.yaml"
    cluster = {
        "contact_points": [ADDRESS],
        "port": CQL_PORT,
        "datacenter": "dc1",
        "keyspace": "drill",
        "replication": 1,
    }
    document = {
        "clusters": {CLUSTER: cluster},
        "tiers": {"t30": {"retention": "30d", "cluster": CLUSTER, "buckets": [{"width": "10d"}]}},
        "tenants": {name: {"tier": "t30"} for name in TENANTS},
    }
    registry.write_text(yaml.safe_dump(document), "utf-8")
    kafka = {"bootstrap_servers": f"127.0.0.1:{KAFKA_PORT}"}
    local = {
        "kafka_port": KAFKA_PORT, "data_dir": folder / "servers", "backup_dir": folder / "backup",
        "incremental_backups": True, "kafka_memory_mb": 256, "cassandra_memory_mb": 384,
    }  # fmt: skip
    changed: dict[str, dict[str, Any]] = {
        "kafka": kafka,
        "local": local,
        "topics": {"partitions": 4},
        "worker": {"group": GROUP},
    }
    environment = {
        f"EVENTSTORE_{section}__{name}".upper(): str(value)
        for section, values in changed.items()
        for name, value in values.items()
    }
    settings = load_settings(registry=registry, **changed)
    return settings, {
        **os.environ,
        **environment,
        "EVENTSTORE_REGISTRY": str(registry),
        "EVENTSTORE_LOG__FORMAT": "json",
    }


def show(found: Recovery) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in found.verdict.counts().items() if count) or "nothing wrong"
    total = sum(found.steps.values())
    out.print(table(f"Recovery {found.name}", ("step", "seconds#"), [(s, f"{t:.1f}") for s, t in found.steps.items()]))
    out.print(
        f"recovery point: {found.verdict.lost} of {found.acknowledged:,} events lost; {found.verdict.doubled} doubled, "
        f"{found.verdict.resurrected} resurrected; {counts}; verify: {found.unverified} missing or different",
        soft_wrap=True,
    )
    out.print(f"recovery time: {total:.1f} s, {total - found.steps['verify every event']:.1f} s without verifying")
    for example in found.verdict.examples:
        err.print(f"  {example}", markup=False)


@app.command()
def main(
    *,
    short: Annotated[bool, typer.Option("--short", help="Few events, as in the short fault suite.")] = False,
    events: Annotated[int, typer.Option(envvar="DRILL_EVENTS", help="In all; 0: as many as it takes.")] = 0,
) -> None:
    """Lose a cluster and bring it back, from a backup and from Kafka alone. Exit 1 if anything is lost or doubled."""
    count = events or (SHORT_EVENTS if short else LONG_EVENTS)
    lifecycle.down(DIRECTORY / "servers")
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir()
    passed = True
    with open_drill(DIRECTORY, count) as drill:
        for disaster in (from_a_backup, from_kafka_alone):
            err.print(f"-- {disaster.__name__.replace('_', ' ')}: {disaster.__doc__}", style="bold", soft_wrap=True)
            try:
                found = disaster(drill)
            except Exception as error:  # whatever it is, it must be told on one line that nobody cuts off
                err.print(f"FAIL {disaster.__name__}: {error!r}"[:2_000], markup=False, soft_wrap=True)
                raise
            show(found)
            passed &= found.passed
    raise typer.Exit(0 if passed else 1)


if __name__ == "__main__":
    app()
