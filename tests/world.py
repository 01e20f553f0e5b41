"""One test's own world on the shared servers: topics, keyspaces, a registry, workers as real processes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from eventstore.config import Settings, load_settings
from eventstore.demo.census import Census, take_census
from eventstore.registry import load_registry
from eventstore.store.schema import apply_schema
from eventstore.store.session import close, connect
from eventstore.stream.admin import TopicAdmin
from eventstore.stream.backlogs import Backlogs
from eventstore.stream.dead_letter import DeadLetter
from eventstore.stream.dead_letter_log import DeadLetterLog
from eventstore.stream.lag import GroupLag, Standing
from eventstore.stream.producer import RecordProducer
from eventstore.stream.topics import wanted_topics
from eventstore.tenancy import Tier
from tests.own_topics import topic_names
from tests.stacks import RunningStack
from tests.waiting import until

DDL_SECONDS = 60.0


@dataclass(slots=True)
class World:
    folder: Path
    settings: Settings
    environment: dict[str, str]
    workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def registry(self) -> Path:
        return self.settings.registry

    def edit_registry(self, **tenants: dict[str, Any]) -> None:
        """Add or replace tenants."""
        document = yaml.safe_load(self.registry.read_text("utf-8"))
        document["tenants"] |= tenants
        self.registry.write_text(yaml.safe_dump(document), "utf-8")

    def publish(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """(key, value) pairs, confirmed by Kafka."""
        producer = RecordProducer(self.settings.kafka, self.settings.producer, self.settings.topics.events)
        for key, value in records:
            producer.publish(key, value)
        producer.confirm()

    def start_worker(self, *options: str, **environment: str) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "eventstore", "worker", *options],
                env=self.environment | environment, stdout=log, stderr=log,
            )  # fmt: skip
        self.workers.append(worker)
        return worker

    @property
    def log(self) -> Path:
        return self.folder / "worker.log"

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        """What workers have logged under this event so far."""
        if not self.log.exists():
            return []
        lines = [json.loads(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]
        return [line for line in lines if line.get("event") == event]

    def wait_for_log(self, event: str, count: int = 1) -> dict[str, Any]:
        until(
            lambda: len(self.log_lines(event)) >= count,
            f"{event!r} in {self.log.read_text() if self.log.exists() else ''}",
        )
        return self.log_lines(event)[count - 1]

    def standing(self) -> Standing:
        with GroupLag(self.settings.kafka, self.settings.worker.group, self.settings.topics.events) as group:
            return group.read()

    def diverted(self) -> dict[str, int]:
        """How many records wait in the retry topics, by cluster."""
        return Backlogs(self.settings.kafka, self.settings.topics, self.settings.worker.group).read()

    def wait_until_committed(self) -> None:
        """Every record is stored, or expired, rejected or diverted."""
        with GroupLag(self.settings.kafka, self.settings.worker.group, self.settings.topics.events) as group:
            until(lambda: group.read().lag == 0, "the workers to catch up", 120)

    def wait_until_caught_up(self) -> None:
        """The same, and what was diverted is home."""
        self.wait_until_committed()
        until(lambda: not any(self.diverted().values()), "the drains to catch up", 120)

    def census(self) -> Census:
        return take_census(self.settings, load_registry(self.registry))

    def dead_letters(self) -> list[DeadLetter]:
        log = DeadLetterLog(self.settings.kafka, self.settings.topics.dead_letters)
        return [letter for letter in log.scan() if isinstance(letter, DeadLetter)]


@contextmanager
def own_world(stack: RunningStack, folder: Path, tenants: dict[str, Any]) -> Iterator[World]:
    """Topics and keyspaces of a test's own, with these tenants; afterwards nothing of it is left."""
    name = f"world_{uuid4().hex[:12]}"
    document = yaml.safe_load(stack.registry_path.read_text("utf-8"))
    for cluster in document["clusters"].values():
        cluster["keyspace"] = name
    registry = folder / "tenants.yaml"
    registry.write_text(yaml.safe_dump(document | {"tenants": tenants}), "utf-8")
    topics = topic_names(name) | {"partitions": 4}
    environment = {
        **os.environ,
        "EVENTSTORE_KAFKA__BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "EVENTSTORE_REGISTRY": str(registry),
        **{f"EVENTSTORE_TOPICS__{field.upper()}": str(value) for field, value in topics.items()},
        "EVENTSTORE_WORKER__GROUP": name,
        "EVENTSTORE_LOG__FORMAT": "json",
    }
    settings = load_settings(
        registry=registry,
        kafka={"bootstrap_servers": stack.bootstrap_servers},
        topics=topics,
        worker={"group": name},
    )
    world = World(folder, settings, environment)
    admin = TopicAdmin(settings.kafka)
    wanted = wanted_topics(settings.topics, document["clusters"])
    admin.apply(wanted)
    tiers = list(load_registry(registry).tiers.values())
    for_each_cluster(tiers, create=True)
    try:
        yield world
    finally:
        for worker in world.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGKILL)
            worker.wait()
        admin.delete(admin.topics(topic.name for topic in wanted))
        for_each_cluster(tiers, create=False)


def for_each_cluster(tiers: Sequence[Tier], *, create: bool) -> None:
    """Create or drop the world's keyspaces."""
    for tier in tiers:
        session = connect(tier.cluster, request_timeout=DDL_SECONDS)
        try:
            if create:
                apply_schema(session, tier)
            else:
                session.execute(f"DROP KEYSPACE IF EXISTS {tier.cluster.keyspace}")
        finally:
            close(session)
