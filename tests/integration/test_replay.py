"""Replays as an operator runs them, on real servers: nothing missing, nothing doubled, whatever ends them."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner, Result

from eventstore.cli.app import build
from eventstore.errors import ConfigurationError, EventstoreError, RefusedError
from eventstore.registry import load_registry, now_ms
from eventstore.replay.marks import MarkTable, take_mark
from eventstore.replay.plan import progress
from eventstore.replay.state import Replay, Replays, Status
from eventstore.store.session import close, connect
from eventstore.stream.offsets import TopicOffsets
from tests.builders import envelope
from tests.stacks import RunningStack
from tests.waiting import until
from tests.world import World, own_world

pytestmark = pytest.mark.integration

COUNT = 4_000
KILLS = 2


def event(number: int, tenant: str = "shop", name: str = "product_viewed") -> tuple[bytes, bytes]:
    uid = f"u{number % 500}"
    value = envelope(tenant=tenant, uid=uid, event=name, timestamp=now_ms(), message_id=f"{tenant}-{number}")
    return f"{tenant}:{uid}".encode(), value


@pytest.fixture
def world(stack: RunningStack, tmp_path: Path) -> Iterator[World]:
    with own_world(stack, tmp_path, {"shop": {"tier": "t30"}, "forum": {"tier": "t15"}}) as found:
        yield found


def replay(world: World, *words: str) -> Result:
    return CliRunner(env=world.environment | {"COLUMNS": "200"}).invoke(build(), ["replay", *words])


def told(world: World, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """The lines of JSON that a command prints."""
    result = replay(world, *words, "--json")
    assert result.exit_code == code, result.output + repr(result.exception)
    return [json.loads(line) for line in result.stdout.splitlines()]


def refused(world: World, *words: str, how: type[EventstoreError] = RefusedError) -> str:
    """The error of a call that must change nothing."""
    before = stored_replays(world)
    result = replay(world, *words, "--execute", "--json")
    assert isinstance(result.exception, how), result.output + repr(result.exception)
    assert stored_replays(world) == before
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_a_replay_stores_its_range_once_and_says_so(world: World) -> None:
    world.publish(
        [*(event(n) for n in range(COUNT)), *(event(n, "forum") for n in range(500)), (b"x", b"not an event")]
    )
    said = told(world, "run", "--from-earliest", "--to-latest", "--execute")
    assert said[0]["event"] == "started"
    assert said[-1]["event"] == "done"
    assert said[-1]["done"] == said[-1]["records"] == COUNT + 501
    assert said[-1]["run"]["rejected"] == {"malformed": 1}
    assert world.census().rows == COUNT + 500
    assert world.census().foreign == 0
    assert world.dead_letters() == []
    checked = told(world, "verify", said[0]["replay"])
    assert checked[-1] == {
        "event": "verified", "wrong": 0, "counts": {"records": COUNT + 501, "identical": COUNT + 500, "malformed": 1},
    }  # fmt: skip


def test_what_is_missing_or_stale_is_found_by_its_coordinates_and_repaired(world: World) -> None:
    world.publish([*(event(n) for n in range(200)), *(event(n, "forum") for n in range(50))])
    told(world, "run", "--from-earliest", "--to-latest", "--execute")
    with session_on(world, "t30") as session:
        (stale,) = session.execute("SELECT uid, tenant, bid, ts, eid, writetime(event) FROM events LIMIT 1")
        session.execute("TRUNCATE events")
        session.execute(
            "INSERT INTO events (uid, tenant, bid, ts, eid, event, properties, context) "
            "VALUES (%s, %s, %s, %s, %s, 'other', '{}', '{}') USING TIMESTAMP %s",
            (*stale[:5], stale[5] - 1),
        )
    found = told(world, "verify", "--from-earliest", "--to-latest", code=1)
    wrong = [line for line in found if line["event"] == "wrong"]
    assert Counter(line["what"] for line in wrong) == {"missing": 199, "different": 1}
    assert len({line["source"] for line in wrong}) == 200
    assert {line["tenant"] for line in wrong} == {"shop"}
    assert [line["eid"] for line in wrong if line["what"] == "different"] == [str(stale[4])]
    assert found[-1]["counts"]["identical"] == 50

    mending = subprocess.run(
        command("verify", "--from-earliest", "--to-latest", "--repair", "--json"),
        env=world.environment, capture_output=True, check=True,
    )  # fmt: skip
    mended = [json.loads(line) for line in mending.stdout.splitlines()]
    assert mended[-1]["wrong"] == 0
    assert mended[-1]["counts"]["repaired"] == 200
    assert told(world, "verify", "--from-earliest", "--to-latest")[-1]["counts"]["identical"] == 250


def test_a_replay_that_is_killed_goes_on_from_its_last_commit(world: World) -> None:
    world.publish([event(n) for n in range(COUNT)])
    running = start(world, "run", "--from-earliest", "--to-latest", "--rate", "1000", "--execute", "--json")
    until(lambda: bool(stored_replays(world)), "the replay's plan")
    (plan,) = (each.plan for each in stored_replays(world))
    offsets = TopicOffsets(world.settings.kafka, plan.topic)

    def done() -> int:
        return progress(plan, offsets.committed(plan.group)).done

    reached = 0
    for kill in range(KILLS):
        until(lambda: done() > reached, f"progress before kill {kill}")  # noqa: B023 — called at once
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        assert done() >= reached, "committed progress went backwards"
        reached = done()
        assert reached < plan.records, f"kill {kill} came after the end"
        running = start(world, "resume", plan.id, "--json")
    assert running.wait(120) == 0, world.log.read_text()
    assert [each.status for each in stored_replays(world)] == [Status.DONE]
    assert told(world, "verify", plan.id)[-1]["counts"]["identical"] == COUNT
    assert world.census().rows == COUNT


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "eventstore", "replay", *words]


def start(world: World, *words: str) -> "subprocess.Popen[bytes]":
    """A replay in a process group of its own: killing that is what a dying host does."""
    with world.log.open("ab") as log:
        process = subprocess.Popen(
            command(*words),
            env=world.environment | {"EVENTSTORE_WORKER__COMMIT_INTERVAL": "0.2"},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    world.workers.append(process)
    return process


def stored_replays(world: World) -> list[Replay]:
    return Replays.of(world.settings).all()


@contextmanager
def session_on(world: World, tier: str) -> Iterator[Any]:
    session = connect(load_registry(world.registry).tiers[tier].cluster, request_timeout=60)
    try:
        yield session
    finally:
        close(session)


def test_filters_choose_what_is_stored_and_several_processes_share_the_work(world: World) -> None:
    world.publish([
        *(event(n) for n in range(300)), *(event(n, name="order_placed") for n in range(300, 400)),
        *(event(n, "forum", "order_placed") for n in range(50)),
    ])  # fmt: skip
    scope = ("--tier", "t30", "--event", "order_placed")
    said = told(world, "run", "--from-earliest", "--to-latest", *scope, "--workers", "2", "--execute")
    assert said[-1]["run"] == {"records": 450, "skipped": 350, "rejected": {}} | {
        "cpu_seconds": said[-1]["run"]["cpu_seconds"]
    }
    assert world.census().rows == 100
    checked = told(world, "verify", said[0]["replay"])
    assert checked[-1]["counts"] == {"records": 450, "skipped": 350, "identical": 100}


def test_a_paused_replay_stops_and_a_cancelled_one_stays_so(world: World) -> None:
    world.publish([event(n) for n in range(600)])
    running = start(world, "run", "--from-earliest", "--to-latest", "--rate", "5", "--execute", "--json")
    until(lambda: bool(stored_replays(world)), "the replay's plan")
    (plan,) = (each.plan for each in stored_replays(world))
    offsets = TopicOffsets(world.settings.kafka, plan.topic)
    until(lambda: progress(plan, offsets.committed(plan.group)).done > 0, "some progress")
    assert plan.id in refused(world, "run", "--from-earliest", "--to-latest")
    assert replay(world, "pause", plan.id).exit_code == 0
    assert running.wait(60) == 1, "a script must not take it for done"
    (status,) = told(world, "status", plan.id)
    assert status["status"] == "paused"
    assert 0 < status["done"] < 600
    assert replay(world, "cancel", plan.id).exit_code == 0
    assert "it is cancelled" in str(replay(world, "resume", plan.id).exception)


def test_what_only_servers_can_tell_is_refused_before_anything_is_written(world: World) -> None:
    world.publish([event(n) for n in range(400)])
    marks = MarkTable(world.settings.kafka, world.settings.topics.marks)
    made = take_mark(world.settings.kafka, name="m", topic=world.settings.topics.events, group="live", now_ms=now_ms())
    marks.add(msgspec.structs.replace(made, name="fewer", offsets={0: 0, 1: 0}))
    assert "expected 2 partitions" in refused(world, "run", "--from-mark", "fewer", "--to-latest")

    document = yaml.safe_load(world.registry.read_text("utf-8"))
    document["clusters"]["c30b"] = document["clusters"]["c30"] | {"keyspace": "nothing_here"}
    world.registry.write_text(yaml.safe_dump(document), "utf-8")
    without_schema = refused(world, "run", "--from-earliest", "--to-latest", "--tier", "t30", "--into", "c30b")
    assert "schema apply --cluster c30b" in without_schema

    trim(world, 20)
    gone = refused(world, "run", "--from-offset", "0", "--to-latest")
    assert "first held is 20 of 20" in gone
    assert "20 records are gone" in gone
    assert world.census().rows == 0
    left = replay(world, "plan", "--from-offset", "0", "--to-latest", "--accept-gap", "--json")
    assert json.loads(left.stdout)["records"] == 400 - 4 * 20


def trim(world: World, first: int) -> None:
    """Have every partition of the event topic let go of what is before this offset."""
    topic = world.settings.topics.events
    admin = AdminClient({"bootstrap.servers": world.settings.kafka.bootstrap_servers})
    for answer in admin.delete_records([TopicPartition(topic, partition, first) for partition in range(4)]).values():
        answer.result()


def test_the_live_group_is_moved_back_only_without_members_and_its_place_is_kept(world: World) -> None:
    world.publish([event(n) for n in range(100)])
    worker = world.start_worker()
    world.wait_until_caught_up()
    assert "stop all workers first" in refused(world, "run", "--from-earliest", "--reset-group")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(40) == 0
    standing = world.standing().committed
    (moved,) = told(world, "run", "--from-earliest", "--reset-group")
    assert world.standing().committed == standing, "without --execute nothing moves"
    assert moved["offsets"] == {str(partition): [offset, 0] for partition, offset in standing.items() if offset}
    (moved,) = told(world, "run", "--from-earliest", "--reset-group", "--execute")
    assert world.standing().lag == 100
    assert MarkTable(world.settings.kafka, world.settings.topics.marks).find(moved["mark"]).offsets == standing
    assert "leave them out" in refused(
        world, "run", "--from-earliest", "--reset-group", "--tier", "t30", how=ConfigurationError
    )


def test_whoever_resumes_takes_the_place_of_those_who_run_already(world: World) -> None:
    world.publish([event(n) for n in range(600)])
    first = start(world, "run", "--from-earliest", "--to-latest", "--rate", "5", "--execute", "--json")
    until(lambda: bool(stored_replays(world)), "the replay's plan")
    (plan,) = (each.plan for each in stored_replays(world))
    offsets = TopicOffsets(world.settings.kafka, plan.topic)
    until(lambda: progress(plan, offsets.committed(plan.group)).done > 0, "some progress")
    second = start(world, "resume", plan.id, "--json")
    assert first.wait(60) == 1
    assert second.poll() is None
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 1, "stopped is not done"
    assert stored_replays(world)[0].status is Status.RUNNING, "to be resumed"
