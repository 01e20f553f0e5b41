"""One cluster away: its records wait in Kafka, everybody else's are stored, and all come home as the same rows."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from eventstore.clock import now_ms
from eventstore.ingest.circuit import Wanted
from eventstore.ingest.control import ControlTable, Order
from eventstore.stream.admin import TopicAdmin
from eventstore.stream.topics import retry_topic
from tests.builders import envelope
from tests.chaos.proxy import Proxy, running_proxy
from tests.stacks import RunningStack
from tests.waiting import until
from tests.world import World, own_world

pytestmark = pytest.mark.integration

QUICK = {
    "EVENTSTORE_WRITER__REQUEST_TIMEOUT": "2",
    "EVENTSTORE_CIRCUIT__SILENCE": "1",
    "EVENTSTORE_CIRCUIT__FIRST_PAUSE": "0.2",
    "EVENTSTORE_CIRCUIT__LONGEST_PAUSE": "0.5",
    "EVENTSTORE_CIRCUIT__DRAIN_LOOK": "0.5",
}


@pytest.fixture
def world(stack: RunningStack, tmp_path: Path) -> Iterator[World]:
    with own_world(stack, tmp_path, {"shop": {"tier": "t30"}, "forum": {"tier": "t15"}}) as found:
        yield found


@pytest.fixture
def proxy(world: World) -> Iterator[Proxy]:
    """Between the workers and the cluster of tenant `forum`."""
    cluster = yaml.safe_load(world.registry.read_text("utf-8"))["clusters"]["c15"]
    host = cluster["contact_points"][0]
    # on the node's own address: that is where the driver looks for a node, whatever the contact point was
    with running_proxy((host, cluster["port"]), (host, 0)) as proxy:
        yield proxy


def start(world: World, proxy: Proxy, **environment: str) -> Any:
    """A worker that knows the cluster only behind the proxy."""
    document = yaml.safe_load(world.registry.read_text("utf-8"))
    document["clusters"]["c15"]["port"] = proxy.address[1]
    registry = world.folder / "behind-proxy.yaml"
    registry.write_text(yaml.safe_dump(document), "utf-8")
    return world.start_worker(EVENTSTORE_REGISTRY=str(registry), **QUICK | environment)


def publish(world: World, count: int, users: str = "u") -> None:
    """So many events of each tenant, side by side and without ids: their identity is where they stand in the topic."""
    now = now_ms()
    world.publish([
        (f"{tenant}:{users}{n % 50}".encode(), envelope(tenant=tenant, uid=f"{users}{n % 50}", timestamp=now - n))
        for n in range(count)
        for tenant in ("forum", "shop")
    ])  # fmt: skip


def rows(world: World) -> dict[str, int]:
    return {each.tier.cluster.name: each.rows for each in world.census().clusters}


def assert_doing_all_again_makes_no_new_row(world: World, total: int) -> None:
    group = f"{world.settings.worker.group}-again"
    again = world.start_worker(EVENTSTORE_WORKER__GROUP=group)
    settings = world.settings.model_copy(
        update={"worker": world.settings.worker.model_copy(update={"group": group})}
    )  # fmt: skip
    World(world.folder, settings, world.environment).wait_until_committed()
    again.send_signal(signal.SIGKILL)
    assert world.census().rows == total


def test_a_cluster_that_says_nothing_for_a_while_loses_nothing_and_delays_nobody(world: World, proxy: Proxy) -> None:
    start(world, proxy)
    publish(world, 100)
    until(lambda: world.census().rows == 200, "all rows")

    proxy.hold()
    publish(world, 300, "v")
    until(lambda: rows(world)["c30"] == 400, "the other cluster's rows")
    world.wait_until_committed()  # so every record that is not stored stands in the retry topic
    assert rows(world)["c15"] + world.diverted()["c15"] >= 400
    assert world.diverted()["c15"] > 0

    proxy.heal()
    until(lambda: rows(world)["c15"] == 400, "the diverted records' rows")
    until(lambda: world.diverted()["c15"] == 0, "the drain's commit")
    assert world.dead_letters() == []
    assert_doing_all_again_makes_no_new_row(world, 800)


def test_a_worker_starts_while_a_cluster_is_away_and_topics_of_its_own_are_missing(world: World, proxy: Proxy) -> None:
    topics = world.settings.topics
    TopicAdmin(world.settings.kafka).delete([retry_topic(topics, "c15"), topics.control])
    proxy.disable()
    worker = start(world, proxy)
    publish(world, 100)
    until(lambda: rows(world)["c30"] == 100, "the other cluster's rows")
    world.wait_until_committed()
    assert world.diverted()["c15"] == 100

    proxy.enable()
    until(lambda: rows(world)["c15"] == 100, "the diverted records' rows")
    publish(world, 100, "v")
    until(lambda: world.census().rows == 400, "rows of both, as if nothing had been")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def test_an_operator_opens_a_circuit_on_every_worker_and_leaves_it_to_itself_again(world: World, proxy: Proxy) -> None:
    control = ControlTable(world.settings.kafka, world.settings.topics.control)
    start(world, proxy)
    world.wait_for_log("partitions assigned")
    control.give("c15", Order(Wanted.OPEN, now_ms()))
    world.wait_for_log("circuit set by an operator")
    publish(world, 50)
    world.wait_until_committed()
    assert rows(world) == {"c15": 0, "c30": 50}
    assert world.diverted()["c15"] == 50
    control.give("c15", Order(Wanted.AUTO, now_ms()))
    until(lambda: rows(world)["c15"] == 50, "the diverted records' rows")


def test_a_retry_topic_that_cannot_be_written_ends_the_worker_without_committing(world: World, proxy: Proxy) -> None:
    proxy.disable()
    worker = start(world, proxy, EVENTSTORE_PRODUCER__DELIVERY_TIMEOUT="3")
    world.wait_for_log("partitions assigned")
    TopicAdmin(world.settings.kafka).delete([retry_topic(world.settings.topics, "c15")])
    world.publish([(b"forum:u1", envelope(tenant="forum", timestamp=now_ms()))])
    assert worker.wait(60) == 1
    assert world.standing().lag == 1


def test_a_topic_of_rejects_halts_the_worker_instead_of_draining_into_the_dead_letters(world: World) -> None:
    world.publish([(b"shop:u1", b"not json")] * 300)
    worker = world.start_worker(EVENTSTORE_WORKER__HALT_REJECT_RECORDS="200", EVENTSTORE_WORKER__CHUNK_RECORDS="1000")
    assert worker.wait(60) == 3
    (complaint,) = [line for line in world.log.read_text().splitlines() if line.startswith("error:")]
    assert "malformed" in complaint
    assert "EVENTSTORE_WORKER__HALT_REJECT_SHARE=1" in complaint
    assert len(world.dead_letters()) < 200  # none, if they came in one fetch
    assert world.standing().lag > 100
