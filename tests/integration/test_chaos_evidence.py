"""The oracle on real servers: harm that is really done to the store, the dead letters or the offsets is caught."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from uuid import uuid4

import pytest
from cassandra.cluster import Session
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from eventstore.clock import now_ms
from eventstore.registry import load_registry
from eventstore.store.session import close, connect
from tests.chaos.evidence import Topics, gather, retentions_of
from tests.chaos.field import group_of
from tests.chaos.load import Mix, Publisher, records, rejected
from tests.chaos.oracle import Evidence, Verdict, judge
from tests.stacks import RunningStack
from tests.waiting import until
from tests.world import World, own_world

pytestmark = pytest.mark.integration

EVENTS = 300
COPY = (
    "INSERT INTO events (uid, tenant, bid, ts, eid, event, properties, context) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
    "USING TIMESTAMP ? AND TTL ?"
)
FIRST = (
    "SELECT uid, tenant, bid, ts, eid, event, properties, context, writetime(properties), ttl(properties) "
    "FROM events LIMIT 1"
)
DELETE = "DELETE FROM events WHERE uid = ? AND tenant = ? AND bid = ? AND ts = ? AND eid = ?"


@dataclass(slots=True)
class Ingested:
    """A small load that a worker has done with."""

    world: World
    publisher: Publisher
    topics: Topics
    session: Session
    """With the cluster of tenant `shop`."""

    def evidence(self) -> Evidence:
        topics, registry = self.world.settings.topics, load_registry(self.world.registry)
        clusters = [tier.cluster for tier in registry.tiers.values()]
        return gather(self.topics, topics.events, topics.dead_letters, [], clusters)

    def verdict(self) -> Verdict:
        homes, retentions = {"shop": ("c30",), "forum": ("c15",)}, retentions_of(load_registry(self.world.registry))
        return judge(self.publisher.plan, self.publisher.acknowledged, homes, self.evidence(), retentions)

    def copy(self, *, tenant: str | None = None) -> None:
        """One more row with the content of one that is there: under another id, and another tenant if one is named."""
        row = self.session.execute(FIRST).one()
        values = (row[0], tenant or row[1], *row[2:4], uuid4(), *row[5:])
        self.session.execute(self.session.prepare(COPY), values)

    def rewrite(self, ttl: int) -> None:
        """One row again as it is, with another time to live in seconds; 0: for ever."""
        row = self.session.execute(FIRST).one()
        # a microsecond later, for a write of the same moment need not win
        self.session.execute(self.session.prepare(COPY), (*row[:8], row[8] + 1, ttl))

    def delete(self) -> None:
        """A row of a record that was sent only once."""
        twice = [e.identity for e in self.publisher.plan.values() if e.identity != e.number]
        for row in self.session.execute("SELECT uid, tenant, bid, ts, eid, properties FROM events"):
            if not any(f'"n":{number},' in row.properties for number in twice):
                self.session.execute(self.session.prepare(DELETE), row[:5])
                return

    def commit(self, *, change: int) -> None:
        """Move one partition's committed offset."""
        (topic, partition), offset = next(iter(self.topics.committed(self.world.settings.topics.events).items()))
        admin = AdminClient({"bootstrap.servers": self.world.settings.kafka.bootstrap_servers})
        place = TopicPartition(topic, partition, offset + change)
        group = self.world.settings.worker.group
        for answer in admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, [place])]).values():
            answer.result()


@pytest.fixture
def ingested(stack: RunningStack, tmp_path: Path) -> Iterator[Ingested]:
    with own_world(stack, tmp_path, {"shop": {"tier": "t30"}, "forum": {"tier": "t15"}}) as world:
        publisher = Publisher(stack.bootstrap_servers, world.settings.topics.events)
        publisher.publish(islice(records(Mix((("shop", 1.0), ("forum", 1.0))), now_ms()), EVENTS))
        publisher.publish(rejected(EVENTS + n, b"shop:u1", b"broken %d" % n, {"malformed"}) for n in range(5))
        worker = world.start_worker()
        world.wait_until_caught_up()
        worker.terminate()
        assert worker.wait(30) == 0
        topics = Topics(stack.bootstrap_servers, group_of(world))
        session = connect(load_registry(world.registry).tiers["t30"].cluster)
        try:
            yield Ingested(world, publisher, topics, session)
        finally:
            close(session)
            topics.close()


def test_harm_that_is_really_done_is_caught(ingested: Ingested) -> None:
    untouched = ingested.verdict()
    assert untouched.holds, untouched.examples

    ingested.delete()
    assert _broken(ingested.verdict()) == {"lost": 1}

    ingested.copy()
    assert _broken(ingested.verdict()) == {"lost": 1, "doubled": 1}

    ingested.copy(tenant="forum")
    assert _broken(ingested.verdict()) == {"lost": 1, "doubled": 1, "foreign": 1}

    ingested.commit(change=1)
    assert ingested.verdict().offsets == 1

    ingested.publisher.publish([rejected(EVENTS + 100, b"shop:u1", b"never seen by a worker", {"malformed"})])
    assert ingested.verdict().lost == 2, "a reject that is nowhere is lost"

    ingested.rewrite(ttl=0)
    assert ingested.verdict().misdated == 1, "a row without end is one too long"
    ingested.rewrite(ttl=90 * 86_400)
    assert ingested.verdict().misdated == 1


def _broken(verdict: Verdict) -> dict[str, int]:
    return {rule: count for rule, count in verdict.counts().items() if count}


def test_a_load_is_published_at_a_rate_until_it_is_stopped(stack: RunningStack, tmp_path: Path) -> None:
    with own_world(stack, tmp_path, {"shop": {"tier": "t30"}}) as world:
        publisher = Publisher(stack.bootstrap_servers, world.settings.topics.events)
        publisher.start(records(Mix((("shop", 1.0),)), now_ms()), 200, 1_000.0)
        until(lambda: len(publisher.acknowledged) >= 200, "the whole load")
        publisher.finish(200)
        assert len(publisher.acknowledged) == len(publisher.plan) >= 200
        assert publisher.failed == []
