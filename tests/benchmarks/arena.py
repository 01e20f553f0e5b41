"""Where one benchmark run takes place: servers, topics filled once and read by every contestant, a fresh keyspace each."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import yaml

from eventstore.config import KafkaSettings, ProducerSettings, TopicSettings, load_settings
from eventstore.demo.census import take_census
from eventstore.registry import load_registry
from eventstore.store.schema import apply_schema
from eventstore.store.session import close, connect
from eventstore.stream.admin import TopicAdmin
from eventstore.stream.producer import RecordProducer
from eventstore.stream.topics import wanted_topics
from eventstore.tenancy import Cluster, Registry
from tests.benchmarks.data import Dataset
from tests.own_topics import topic_names

PARTITIONS = 8
DDL_SECONDS = 60.0
SCAN_SECONDS = 30.0


class WrongRowsError(AssertionError):
    """What is stored is not every event exactly once."""


@dataclass(frozen=True, slots=True)
class Load:
    """A topic that holds a dataset."""

    topic: str
    data: Dataset
    users: Counter[tuple[str, str]] = field(repr=False)
    """Events by (tenant, uid)."""

    @property
    def events(self) -> int:
        return self.data.count


@dataclass(frozen=True, slots=True)
class Target:
    """A keyspace of one contestant's own, or a stand-in for a cluster, and the registry that leads there."""

    cluster: Cluster
    registry_path: Path

    @property
    def registry(self) -> Registry:
        return load_registry(self.registry_path)


@dataclass(slots=True)
class Arena:
    bootstrap_servers: str
    cluster: Cluster
    """The real one."""
    folder: Path
    _loads: dict[str, Load] = field(default_factory=dict)
    _topics: list[str] = field(default_factory=list)

    @property
    def kafka(self) -> KafkaSettings:
        return KafkaSettings(bootstrap_servers=self.bootstrap_servers)

    @property
    def loads(self) -> list[Load]:
        return list(self._loads.values())

    def load(self, data: Dataset) -> Load:
        """The topic that holds this dataset; filled at the first call."""
        if data.name not in self._loads:
            topic = self.topic()
            self._loads[data.name] = Load(topic, data, self.publish(topic, data))
        return self._loads[data.name]

    def topic(self) -> str:
        """An empty topic, and those beside it that a worker needs."""
        name = f"bench_{uuid4().hex[:12]}"
        self._topics.append(name)
        TopicAdmin(self.kafka).apply(wanted_topics(_topics(name)))
        return name

    @contextmanager
    def keyspace(self, tenants: Sequence[str], **fields: object) -> Iterator[Target]:
        """An empty keyspace on the real cluster; dropped at the end. `fields` are as `target` takes them."""
        cluster = replace(self.cluster, keyspace=f"bench_{uuid4().hex[:12]}")
        target = self.target(cluster, tenants, **fields)
        session = connect(cluster, request_timeout=DDL_SECONDS)
        try:
            for tier in target.registry.tiers.values():
                apply_schema(session, tier)
            yield target
        finally:
            session.execute(f"DROP KEYSPACE IF EXISTS {cluster.keyspace}")
            close(session)

    def target(self, cluster: Cluster, tenants: Sequence[str], **fields: object) -> Target:
        """A registry of one tier with these tenants on this cluster; `fields` are what each has beside its tier."""
        document = {
            "clusters": {
                cluster.name: {
                    "contact_points": list(cluster.contact_points), "port": cluster.port,
                    "datacenter": cluster.datacenter, "keyspace": cluster.keyspace, "replication": cluster.replication,
                }
            },
            "tiers": {"t30": {"retention": "30d", "cluster": cluster.name, "buckets": [{"width": "10d"}]}},
            "tenants": {name: {"tier": "t30"} | fields for name in tenants},
        }  # fmt: skip
        path = self.folder / f"registry-{uuid4().hex[:12]}.yaml"
        path.write_text(yaml.safe_dump(document), "utf-8")
        return Target(cluster, path)

    def environment(self, topic: str, target: Target, group: str, **more: str) -> dict[str, str]:
        """A worker's environment."""
        return {
            **os.environ,
            "EVENTSTORE_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "EVENTSTORE_REGISTRY": str(target.registry_path),
            **{f"EVENTSTORE_TOPICS__{field.upper()}": value for field, value in topic_names(topic).items()},
            "EVENTSTORE_WORKER__GROUP": group,
            "EVENTSTORE_LOG__FORMAT": "json",
        } | more

    def check(self, target: Target, users: Counter[tuple[str, str]]) -> None:
        """Every event is stored exactly once.

        Raises:
            WrongRowsError: some user has more or fewer rows than events.
        """
        settings = load_settings(writer={"request_timeout": SCAN_SECONDS})
        found = Counter(take_census(settings, target.registry).users)
        if found != users:
            missing, doubled = (users - found).total(), (found - users).total()
            raise WrongRowsError(
                f"expected {users.total()} rows, one an event, found {found.total()}: {missing} missing, {doubled} too many"
            )

    def close(self) -> None:
        """Delete what the run has made on the servers."""
        TopicAdmin(self.kafka).delete([each.name for topic in self._topics for each in wanted_topics(_topics(topic))])

    def publish(self, topic: str, data: Dataset) -> Counter[tuple[str, str]]:
        """Fill a topic; gives the events by (tenant, uid)."""
        users: Counter[tuple[str, str]] = Counter()
        producer = RecordProducer(self.kafka, ProducerSettings(), topic)
        for event in data:
            producer.publish(event.key, event.value)
            users[event.tenant, event.uid] += 1
        producer.confirm()
        return users


def _topics(name: str) -> TopicSettings:
    return TopicSettings(**topic_names(name), partitions=PARTITIONS)
