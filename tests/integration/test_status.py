"""What a real worker says of itself over HTTP, from its first moment to its last."""

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from eventstore.config import WorkerSettings
from eventstore.errors import KafkaError
from eventstore.stream import silence
from eventstore.stream.consumer import ChunkConsumer, ConsumerPolicy
from eventstore.stream.group import consumer_policy, group_config
from eventstore.stream.producer import RecordProducer
from eventstore.stream.pump import Pump
from tests.builders import envelope
from tests.own_topics import OwnTopics, own_topics
from tests.stacks import RunningStack
from tests.waiting import eventually, until
from tests.world import World, own_world

pytestmark = pytest.mark.integration


@pytest.fixture
def world(stack: RunningStack, tmp_path: Path) -> Iterator[World]:
    with own_world(stack, tmp_path, {"shop": {"tier": "t30"}}) as made:
        yield made


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Port:
    def __init__(self) -> None:
        self.number = free_port()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; 0 while nobody answers."""
        connection = HTTPConnection("127.0.0.1", self.number, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, HTTPException):
            return 0, ""
        finally:
            connection.close()

    def checks(self, probe: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get(f"/health/{probe}")[1])["checks"]
        return found

    def value(self, sample: str) -> float:
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith(sample + " ")]
        return float(lines[0].split()[-1]) if lines else 0.0


def test_a_worker_is_alive_then_ready_then_counts_what_it_did(world: World) -> None:
    port = Port()
    worker = world.start_worker(EVENTSTORE_WORKER__METRICS_PORT=str(port.number))
    until(lambda: port.get("/health/live")[0] == 200, "the port to answer")
    until(lambda: port.get("/health/ready")[0] == 200, "the worker to be ready")
    assert port.checks("ready")["assignment"]["detail"] == "4 partitions"
    assert port.checks("ready")["clusters"]["detail"] == "c15 closed, c30 closed"
    world.publish([(b"shop:u1", envelope(timestamp="2026-09-01T00:00:00Z")), (b"shop:u1", b"not json")])
    until(lambda: port.value("eventstore_consumed_total") == 2, "both records")
    assert port.value('eventstore_rejected_total{reason="malformed"}') == 1
    assert port.value("eventstore_in_flight_records") == 0
    assert port.value('eventstore_in_flight_batches{cluster="c30"}') == 0
    until(lambda: port.value(f'eventstore_commit_lag_records{{topic="{world.settings.topics.events}"}}') == 0, "no lag")
    assert port.value('eventstore_check{check="pump",probe="live"}') == 1
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0


def test_a_member_beyond_the_number_of_partitions_waits_for_nothing(stack: RunningStack) -> None:
    async def scenario(topics: OwnTopics) -> None:
        worker = WorkerSettings(group=topics.events)
        config = group_config(topics.settings.kafka, worker)
        members = [ChunkConsumer(config, ConsumerPolicy(), nothing, lambda _: None) for _ in range(2)]
        try:
            for member in members:
                member.start([topics.events])
                assert member.outside_since is not None
                await eventually(lambda member=member: member.outside_since is None, "the group's word")  # type: ignore[misc]
            assert sorted(len(member.assignment) for member in members) == [0, 1]
        finally:
            for member in members:
                await member.stop()
        assert REGISTRY.get_sample_value("eventstore_commit_lag_records", {"topic": topics.events}) is None

    async def nothing(_: object) -> None:
        pass

    with own_topics(stack, partitions=1) as topics:
        asyncio.run(scenario(topics))


def test_a_client_that_fetches_nothing_although_records_come_is_told_of(
    stack: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "LOOK_SECONDS", 0.1)

    async def scenario(topics: OwnTopics) -> None:
        worker, settings = WorkerSettings(group=topics.events, commit_interval=0.1), topics.settings
        member = ChunkConsumer(group_config(settings.kafka, worker), consumer_policy(worker), nothing, unheard)
        producer = RecordProducer(settings.kafka, settings.producer, topics.events)

        def told_while_more_comes() -> bool:
            producer.publish(b"shop:u1", b"{}")
            return member.silent_since is not None

        try:
            member.start([topics.events])
            await eventually(lambda: len(member.assignment) == 1, "the partition")
            member._pump.holding = True
            await eventually(lambda: member.stalled, "the client to fetch no more")
            with monkeypatch.context() as never_resumed:
                never_resumed.setattr(Pump, "_resume", lambda _: None)
                member._pump.holding = False
                await eventually(told_while_more_comes, "the silence")
            await eventually(lambda: member.silent_since is None, "its end")
        finally:
            await member.stop()

    async def nothing(_: object) -> None:
        pass

    def unheard(error: KafkaError) -> None:
        raise AssertionError(error)

    with own_topics(stack, partitions=1) as topics:
        asyncio.run(scenario(topics))
