"""Workers as real processes on real servers: nothing lost, nothing doubled, loud when they cannot go on."""

import gzip
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from itertools import islice
from pathlib import Path

import pytest
import yaml

from eventstore.clock import now_ms
from eventstore.demo.broken import broken_records
from eventstore.demo.scene import EDITS
from eventstore.events.foreign import Constant, EnvelopeMapping
from eventstore.events.outgoing import Outgoing, Preparation
from eventstore.registry import load_registry
from eventstore.store.schema import apply_schema
from eventstore.store.session import close, connect
from eventstore.stream.admin import TopicAdmin
from eventstore.stream.topics import retry_topic
from tests.builders import envelope
from tests.stacks import RunningStack
from tests.waiting import until
from tests.world import World, own_world

pytestmark = pytest.mark.integration

EDIT_COUNT = 8_000
MAPPING = EnvelopeMapping(
    tenant="channel", uid="user", event=Constant("page_edited"), timestamp="time", tenant_strip="#"
)


@cache
def raw_edits() -> list[bytes]:
    with gzip.open(files("eventstore.demo") / "data" / EDITS) as lines:  # type: ignore[call-overload]
        return list(islice(lines, EDIT_COUNT))


def edits() -> list[tuple[bytes, bytes]]:
    """Real edits as our producer would publish them, moved to the present: of the last day, none of the future."""
    now = now_ms() * 1000
    last = 1_442_102_399_000_000  # the end of the day they were made on
    prepared = [
        Preparation(now, MAPPING, shift_micros=now - last).prepare(line, number)
        for number, line in enumerate(raw_edits())
    ]
    assert all(isinstance(each, Outgoing) for each in prepared)
    return [(each.key or b"", each.value) for each in prepared if isinstance(each, Outgoing)]


def wikis() -> dict[str, dict[str, str]]:
    """Every wiki a tenant, every other one in the longer tier."""
    names = sorted({json.loads(line)["channel"].strip("#") for line in raw_edits()})
    return {name: {"tier": "t30" if number % 2 else "t15"} for number, name in enumerate(names)}


def event(uid: str, tenant: str = "shop", number: int = 0) -> tuple[bytes, bytes]:
    return f"{tenant}:{uid}".encode(), envelope(
        tenant=tenant, uid=uid, timestamp=now_ms(), message_id=f"{uid}-{number}"
    )


@pytest.fixture
def world(stack: RunningStack, tmp_path: Path) -> Iterator[World]:
    with own_world(stack, tmp_path, {"shop": {"tier": "t30"}, "forum": {"tier": "t15"}}) as found:
        yield found


def test_workers_killed_in_the_middle_of_a_load_lose_and_double_nothing(stack: RunningStack, tmp_path: Path) -> None:
    with own_world(stack, tmp_path, wikis()) as world:
        broken = some_broken_records()
        records = edits()
        world.publish([*records[: EDIT_COUNT // 2], *broken, *records[EDIT_COUNT // 2 :]])
        for kill in range(2):
            worker = world.start_worker(
                EVENTSTORE_WORKER__IN_FLIGHT_RECORDS="500", EVENTSTORE_WORKER__CHUNK_RECORDS="100"
            )
            progress = sum(world.standing().committed.values())
            until(lambda: sum(world.standing().committed.values()) > progress, "a commit", 60)  # noqa: B023 — called at once
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            assert world.standing().lag > 0, f"kill {kill} came after the load"
        last = world.start_worker()
        world.wait_until_caught_up()
        assert world.census().rows == EDIT_COUNT
        assert world.census().foreign == 0
        origins = {letter.source: letter.reason for letter in world.dead_letters()}
        assert Counter(origins.values()) == {"malformed": 1, "key_mismatch": 1, "unknown_tenant": 1, "too_large": 1}

        world.publish(records)
        world.wait_until_caught_up()
        assert world.census().rows == EDIT_COUNT, "the same input again made new rows"
        last.send_signal(signal.SIGTERM)
        assert last.wait(30) == 0
        assert world.standing().lag == 0


def some_broken_records() -> list[tuple[bytes, bytes]]:
    kept = {"malformed", "key_mismatch", "unknown_tenant", "too_large"}
    return [(b.key, b.value) for b in broken_records(datetime.now(UTC)) if b.reason.value in kept]


def test_a_stopped_worker_commits_what_it_has_stored(world: World) -> None:
    world.publish([event(f"u{n}", number=n) for n in range(500)])
    worker = world.start_worker(EVENTSTORE_WORKER__COMMIT_INTERVAL="3600")
    until(lambda: world.census().rows == 500, "all rows")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert world.standing().lag == 0
    assert world.wait_for_log("worker stopped")["records"] == 500


def test_an_edited_registry_takes_effect_and_an_invalid_edit_does_not(world: World) -> None:
    world.start_worker()
    world.publish([event("u1"), event("u1", "newcomer")])
    until(lambda: len(world.dead_letters()) == 1, "the unknown tenant's reject")
    world.edit_registry(newcomer={"tier": "t15"})
    world.wait_for_log("registry put in force")
    world.publish([event("u2", "newcomer")])
    until(lambda: world.census().rows == 2, "the newcomer's row")
    good = world.registry.read_text("utf-8")
    world.edit_registry(broken={"tier": "t99"})
    refusal = world.wait_for_log("registry edit refused, the old one stays in force")
    assert "tenants.broken.tier" in refusal["error"]
    world.registry.write_text(good, "utf-8")
    world.publish([event("u3", "newcomer")])
    until(lambda: world.census().rows == 3, "a row by the old registry")


def test_a_supervisor_restarts_a_killed_worker_and_stops_all_of_them(world: World) -> None:
    supervisor = world.start_worker("--processes", "2")
    victim = world.wait_for_log("worker started", 2)["pid"]
    world.publish([event(f"u{n}", number=n) for n in range(300)])
    world.wait_until_caught_up()
    os.kill(victim, signal.SIGKILL)
    world.wait_for_log("worker ended, starting it again")
    world.wait_for_log("worker started", 3)
    supervisor.send_signal(signal.SIGHUP)
    world.publish([event(f"v{n}", number=n) for n in range(300)])
    world.wait_until_caught_up()
    assert world.census().rows == 600
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(40) == 0


def test_a_worker_that_is_stopped_while_it_starts_ends_cleanly(world: World) -> None:
    worker = world.start_worker()
    world.wait_for_log("worker starting")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert "Traceback" not in world.log.read_text()


def test_a_registry_edit_is_followed_once_its_new_cluster_is_there(world: World) -> None:
    world.start_worker()
    world.wait_for_log("partitions assigned")
    document = yaml.safe_load(world.registry.read_text("utf-8"))
    document["clusters"]["c60"] = document["clusters"]["c15"] | {"keyspace": f"{world.settings.worker.group}_60"}
    document["tiers"]["t60"] = {"retention": "60d", "cluster": "c60", "buckets": [{"width": "10d"}]}
    document["tenants"]["newcomer"] = {"tier": "t30"}
    world.registry.write_text(yaml.safe_dump(document), "utf-8")
    world.wait_for_log("registry edit not followed yet, trying again")
    tier = load_registry(world.registry).tiers["t60"]
    session = connect(tier.cluster, request_timeout=60)
    try:
        apply_schema(session, tier)
        world.wait_for_log("routes follow the edited registry")
        world.publish([event("u1", "newcomer")])
        until(lambda: world.census().rows == 1, "the newcomer's row")
        assert world.diverted()["c60"] == 0, "the new cluster has a retry topic"
    finally:
        TopicAdmin(world.settings.kafka).delete([retry_topic(world.settings.topics, "c60")])
        session.execute(f"DROP KEYSPACE {tier.cluster.keyspace}")
        close(session)


def test_a_missing_table_ends_the_worker_before_it_takes_anything(world: World) -> None:
    world.publish([event("u1")])
    tier = load_registry(world.registry).tiers["t30"]
    session = connect(tier.cluster, request_timeout=60)
    session.execute(f"DROP TABLE {tier.cluster.keyspace}.events")
    close(session)
    worker = world.start_worker()
    assert worker.wait(60) == 1
    (complaint,) = [line for line in world.log.read_text().splitlines() if line.startswith("error:")]
    assert "c30" in complaint
    assert "Traceback" not in world.log.read_text()
    assert world.standing().lag == 1


def test_a_table_that_loses_a_column_under_way_ends_the_worker_without_committing(world: World) -> None:
    worker = world.start_worker()
    world.publish([event("u1")])
    world.wait_until_caught_up()
    tier = load_registry(world.registry).tiers["t30"]
    session = connect(tier.cluster, request_timeout=60)
    session.execute(f"ALTER TABLE {tier.cluster.keyspace}.events DROP context")
    close(session)
    world.publish([event("u2")])
    assert worker.wait(60) == 1
    assert world.standing().lag == 1


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"EVENTSTORE_REGISTRY": "/nowhere/tenants.yaml"}, 2, "/nowhere/tenants.yaml"),
        ({"EVENTSTORE_TOPICS__EVENTS": "no-such-topic"}, 1, "no-such-topic"),
        ({"EVENTSTORE_WORKER__COMMIT_INTERVAL": "soon"}, 2, "worker.commit_interval"),
    ],
)
def test_what_an_operator_got_wrong_is_one_line(world: World, changes: dict[str, str], code: int, said: str) -> None:
    worker = world.start_worker(**changes)
    assert worker.wait(60) == code
    (complaint,) = [line for line in world.log.read_text().splitlines() if line.startswith("error:")]
    assert said in complaint
    assert "Traceback" not in world.log.read_text()
