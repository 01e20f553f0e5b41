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
from uuid import uuid4

import msgspec
import pytest
import yaml
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner, Result

from eventstore.cli.app import build
from eventstore.clock import now_ms
from eventstore.errors import ConfigurationError, EventstoreError, RefusedError
from eventstore.registry import load_registry
from eventstore.replay.marks import MarkTable, take_mark
from eventstore.replay.plan import Plan, progress
from eventstore.replay.ranges import Range
from eventstore.replay.run import CONCURRENT_CHUNKS
from eventstore.replay.scope import Scope
from eventstore.replay.state import Replay, Replays, Status
from eventstore.store.session import close, connect
from eventstore.stream.offsets import TopicOffsets
from tests.builders import envelope
from tests.stacks import RunningStack
from tests.waiting import until
from tests.world import World, own_world
from workers.replay import CHUNKS_PER_SECOND

pytestmark = pytest.mark.integration

RATE = 100
"""Records a second of a replay that must still be running when it is killed."""
COMMIT_SECONDS = 0.2
ANSWER_SECONDS = 1.0
"""Until a busy broker has answered a commit: so much later the next one may be asked for."""


def event(number: int, tenant: str = "shop", name: str = "product_viewed") -> tuple[bytes, bytes]:
    uid = f"u{number % 100}"
    value = envelope(tenant=tenant, uid=uid, event=name, timestamp=now_ms(), message_id=str(uuid4()))
    return f"{tenant}:{uid}".encode(), value


@pytest.fixture(scope="module")
def world(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    tenants = {"shop": {"tier": "t30"}, "forum": {"tier": "t15"}}
    with own_world(stack, tmp_path_factory.mktemp("replay"), tenants) as found:
        yield found


@pytest.fixture
def own(world: World, tmp_path: Path) -> tuple[str, ...]:
    """The options of a range that holds just what the test itself publishes."""
    ends = {partition: there.end for partition, there in offsets_of(world).held().items()}
    offsets = tmp_path / "offsets.csv"
    offsets.write_text("".join(f"{partition},{end}\n" for partition, end in ends.items()), "utf-8")
    return ("--from-offset", str(offsets), "--to-latest")


def offsets_of(world: World) -> TopicOffsets:
    return TopicOffsets(world.settings.kafka, world.settings.topics.events)


def replay(world: World, *words: str) -> Result:
    return CliRunner(env=world.environment | {"COLUMNS": "200"}).invoke(build(["replay"]), ["replay", *words])


def told(world: World, *words: str, code: int = 0) -> list[dict[str, Any]]:
    """The lines of JSON that a command prints."""
    result = replay(world, *words, "--json")
    assert result.exit_code == code, result.output + repr(result.exception)
    return [json.loads(line) for line in result.stdout.splitlines()]


def refused(world: World, *words: str, how: type[EventstoreError] = RefusedError) -> str:
    """The error of a call that must change nothing."""
    before = stored_replays(world)
    result = replay(world, *words)
    assert isinstance(result.exception, how), result.output + repr(result.exception)
    assert stored_replays(world) == before
    assert "\n" not in str(result.exception)
    return str(result.exception)


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "eventstore", "replay", *words]


def start(world: World, *words: str) -> "subprocess.Popen[bytes]":
    """A replay in a process group of its own: killing that is what a dying host does."""
    with world.log.open("ab") as log:
        process = subprocess.Popen(
            command(*words),
            env=world.environment | {"EVENTSTORE_WORKER__COMMIT_INTERVAL": str(COMMIT_SECONDS)},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    world.workers.append(process)
    return process


def start_and_see(world: World, *words: str) -> tuple["subprocess.Popen[bytes]", Plan]:
    """A replay that has done something, and its plan."""
    known = {each.plan.id for each in stored_replays(world)}
    running = start(world, "run", *words, "--execute", "--json")

    def is_on_record() -> bool:
        assert running.poll() is None, f"it ended with {running.returncode}: {world.log.read_text()[-2_000:]}"
        return len(stored_replays(world)) > len(known)

    until(is_on_record, f"the replay's plan; see {world.log}")
    (plan,) = (each.plan for each in stored_replays(world) if each.plan.id not in known)
    until(lambda: done(world, plan) > 0, "some progress")
    return running, plan


def done(world: World, plan: Plan) -> int:
    return progress(plan, offsets_of(world).committed(plan.group)).done


def stored_replays(world: World) -> list[Replay]:
    return Replays.of(world.settings).all()


@contextmanager
def session_on(world: World, tier: str) -> Iterator[Any]:
    session = connect(load_registry(world.registry).tiers[tier].cluster, request_timeout=60)
    try:
        yield session
    finally:
        close(session)


def test_a_range_is_stored_once_and_what_goes_wrong_with_it_later_is_found_and_repaired(
    world: World, own: tuple[str, ...]
) -> None:
    world.publish([*(event(n) for n in range(200)), *(event(n, "forum") for n in range(50)), (b"x", b"not an event")])
    before = world.census().rows
    said = told(world, "run", *own, "--execute")
    assert said[0]["event"] == "started"
    assert said[-1]["event"] == "done"
    assert said[-1]["done"] == said[-1]["records"] == 251
    assert said[-1]["run"]["rejected"] == {"malformed": 1}
    assert world.census().rows - before == 250
    assert world.census().foreign == 0
    assert world.dead_letters() == []
    checked = told(world, "verify", said[0]["replay"])
    assert checked[-1] == {
        "event": "verified", "wrong": 0, "counts": {"records": 251, "identical": 250, "malformed": 1},
    }  # fmt: skip

    with session_on(world, "t30") as session:
        stale, immortal, foreign, *_ = session.execute(
            "SELECT uid, tenant, bid, ts, eid, event, properties, context, writetime(event) FROM events LIMIT 3"
        )
        session.execute("TRUNCATE events")
        insert = (
            "INSERT INTO events (uid, tenant, bid, ts, eid, event, properties, context) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) USING TIMESTAMP %s"
        )
        session.execute(insert, (*stale[:5], "other", *stale[6:8], stale[8] - 1))
        session.execute(insert + " AND TTL 0", immortal)
        session.execute(insert, (*foreign[:8], foreign[8] + 60_000_000))
    found = told(world, "verify", *own, code=1)
    wrong = [line for line in found if line["event"] == "wrong"]
    assert Counter(line["what"] for line in wrong) == {"missing": 197, "different": 1, "lifetime": 1, "overwritten": 1}
    assert len({line["source"] for line in wrong}) == 200
    assert {line["tenant"] for line in wrong} == {"shop"}
    by_what = {line["what"]: line["eid"] for line in wrong}
    assert by_what["different"] == str(stale[4])
    assert by_what["lifetime"] == str(immortal[4])
    assert by_what["overwritten"] == str(foreign[4])
    assert found[-1]["counts"]["identical"] == 50

    mending = subprocess.run(
        command("verify", *own, "--repair", "--json"), env=world.environment, capture_output=True, check=False
    )
    mended = [json.loads(line) for line in mending.stdout.splitlines()]
    assert mending.returncode == 1
    assert mended[-1]["wrong"] == 1, "nothing wins over the foreign write"
    assert mended[-1]["counts"]["repaired"] == 199
    assert told(world, "verify", *own, code=1)[-1]["counts"]["identical"] == 249


def test_a_replay_that_is_killed_goes_on_from_its_last_commit_with_more_processes(
    world: World, own: tuple[str, ...]
) -> None:
    world.publish([
        *(event(n, name="order_placed") for n in range(400)), *(event(n) for n in range(100)),
        *(event(n, "forum", "order_placed") for n in range(100)),
    ])  # fmt: skip
    before = world.census().rows
    scope = ("--tier", "t30", "--event", "order_placed")
    running, plan = start_and_see(world, *own, *scope, "--rate", str(RATE))
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    reached = done(world, plan)
    assert 0 < reached < plan.records, "the kill came after the end"
    redone = world.census().rows - before - reached
    assert redone <= RATE * (COMMIT_SECONDS + ANSWER_SECONDS) + CONCURRENT_CHUNKS * RATE / CHUNKS_PER_SECOND

    said = told(world, "resume", plan.id, "--workers", "2")[-1]
    assert said["event"] == "done"
    left = plan.records - reached
    assert left <= said["run"]["records"] < plan.records, "it must go on where it was, and leave nothing out"
    assert world.census().rows - before == 400
    assert told(world, "verify", plan.id)[-1]["counts"] == {"records": 600, "skipped": 200, "identical": 400}


def test_whoever_resumes_takes_the_place_of_those_who_run_already_until_it_is_paused(
    world: World, own: tuple[str, ...]
) -> None:
    world.publish([event(n) for n in range(600)])
    first, plan = start_and_see(world, *own, "--rate", "5")
    assert plan.id in refused(world, "run", *own, "--execute", "--json")
    reached = done(world, plan)
    second = start(world, "resume", plan.id, "--json")
    assert first.wait(60) == 1
    until(lambda: done(world, plan) > reached, "progress of the second")
    assert stored_replays(world)[-1].status is Status.RUNNING
    paused = replay(world, "pause", plan.id)
    assert f"{plan.id} is paused" in paused.stdout, paused.output
    assert second.wait(60) == 1, "a script must not take it for done"
    (status,) = told(world, "status", plan.id)
    assert status["status"] == "paused"
    assert status["members"] == []
    assert 0 < status["done"] < 600
    assert f"{plan.id} is cancelled" in replay(world, "cancel", plan.id).stdout
    assert "it is cancelled" in refused(world, "resume", plan.id)


def test_the_live_group_is_moved_back_and_forth_only_without_members(world: World, own: tuple[str, ...]) -> None:
    world.publish([event(n) for n in range(100)])
    offsets, group, moving = offsets_of(world), world.settings.worker.group, (*own[:2], "--reset-group")
    stands = {partition: there.end for partition, there in offsets.held().items()}
    offsets.move(group, stands)
    with member_of(world):
        assert "stop all workers first" in refused(world, "run", *moving, "--execute")
    until(lambda: not offsets.members(group), "the member to leave")
    (moved,) = told(world, "run", *moving)
    assert offsets.committed(group) == stands, "without --execute nothing moves"
    (moved,) = told(world, "run", *moving, "--execute")
    assert world.standing().lag == 100
    begins = offsets.committed(group)
    assert moved["offsets"] == {str(p): [end, begins[p]] for p, end in stands.items() if end != begins[p]}
    assert MarkTable(world.settings.kafka, world.settings.topics.marks).find(moved["mark"]).offsets == stands

    back = ("--from-mark", moved["mark"], "--reset-group")
    for wrong in (("--tier", "t30"), ("--rate", "5"), ("--workers", "2"), ("--beside-others",)):
        assert "leave them out" in refused(world, "run", *back, *wrong, how=ConfigurationError)
    told(world, "run", *back, "--execute")
    assert offsets.committed(group) == stands
    assert "it has gone on since" in refused(world, "run", *back, "--execute")


@contextmanager
def member_of(world: World) -> Iterator[None]:
    """Somebody is in the live group."""
    consumer = Consumer({
        "bootstrap.servers": world.settings.kafka.bootstrap_servers, "group.id": world.settings.worker.group,
        "enable.auto.commit": False,
    })  # fmt: skip
    consumer.subscribe([world.settings.topics.events])
    try:
        until(lambda: consumer.poll(0.1) is not None or bool(consumer.assignment()), "the member to join")
        yield
    finally:
        consumer.close()


def test_what_only_servers_can_tell_is_refused_before_anything_is_written(world: World, own: tuple[str, ...]) -> None:
    world.publish([event(n) for n in range(400)])
    start_of = offsets_of(world).held()
    executed = ("--to-latest", "--execute", "--json")
    marks = MarkTable(world.settings.kafka, world.settings.topics.marks)
    made = take_mark(world.settings.kafka, name="m", topic=world.settings.topics.events, group="live", now_ms=now_ms())
    marks.add(msgspec.structs.replace(made, name="fewer", offsets={0: 0, 1: 0}))
    assert "expected 2 partitions" in refused(world, "run", "--from-mark", "fewer", *executed)
    marks.add(msgspec.structs.replace(made, name="gone", topic_id="another"))
    assert "deleted since" in refused(world, "run", "--from-mark", "gone", *executed)
    assert "looks at nothing" in refused(world, "verify", *own, "--sample", "0", how=ConfigurationError)

    document = yaml.safe_load(world.registry.read_text("utf-8"))
    document["clusters"]["c30b"] = document["clusters"]["c30"] | {"keyspace": "nothing_here"}
    world.registry.write_text(yaml.safe_dump(document), "utf-8")
    assert "schema apply --cluster c30b" in refused(
        world, "run", *own, "--tier", "t30", "--into", "c30b", "--execute", "--json"
    )

    before = world.census().rows
    replays, now = Replays.of(world.settings), now_ms()
    ranges = {partition: Range(there.end - 20, there.end) for partition, there in start_of.items()}
    topic = world.settings.topics.events
    plan = Plan("r1", topic, f"{world.settings.worker.group}.replay.r1", ranges, Scope(), ("c15", "c30"), now)
    replays.begin(Replay(plan, Status.RUNNING, now), beside_others=False)
    trim(world, {partition: there.end - 15 for partition, there in start_of.items()})
    gone = refused(world, "run", *own, "--execute", "--json")
    assert "the first held is" in gone
    assert "records are gone" in gone
    left = replay(world, "plan", *own, "--accept-gap", "--json")
    assert json.loads(left.stdout)["records"] == 4 * 15

    assert "5 records are gone" in refused(world, "resume", "r1")
    assert world.census().rows == before
    (*_, last) = told(world, "resume", "r1", "--accept-gap")
    assert (last["event"], last["run"]["records"]) == ("done", 4 * 15)
    checked = replay(world, "verify", "r1", "--json")
    assert json.loads(checked.stdout.splitlines()[-1])["counts"] == {"records": 60, "identical": 60}
    assert "not all of the range could be checked" in str(checked.exception)


def trim(world: World, firsts: dict[int, int]) -> None:
    """Have partitions of the event topic let go of what is before these offsets."""
    topic = world.settings.topics.events
    admin = AdminClient({"bootstrap.servers": world.settings.kafka.bootstrap_servers})
    places = [TopicPartition(topic, partition, first) for partition, first in firsts.items()]
    for answer in admin.delete_records(places).values():
        answer.result()
