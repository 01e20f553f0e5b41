"""Backlogs, memory, and replays under fire."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from eventstore.replay.plan import progress
from eventstore.replay.state import Replays
from eventstore.store.session import close, connect
from eventstore.stream.offsets import TopicOffsets
from tests.chaos.field import BOOTSTRAP, Field
from tests.chaos.scenarios.store import opened

REPLAY: Final = (sys.executable, "-m", "eventstore", "replay")
EVERYTHING: Final = ("--from-earliest", "--to-latest")
OPEN_SECONDS: Final = 60.0
SHORT_SECONDS: Final = 8.0
REFUSED: Final = 3
KILLS: Final = 5
COMMIT_SECONDS: Final = 0.5
"""Between two commits of a replay: what a kill costs at most."""


def backlog(field: Field) -> None:
    """Everything was published before a worker came; its memory is what it is for live traffic."""
    field.publisher.publish(itertools.islice(field.load(), field.events))
    begun = time.time()
    field.start_workers(1)
    field.wait(lambda: field.lag() == 0, "the backlog to be drained", 450)
    field.figures["drained_per_second"] = round(field.events / (time.time() - begun))
    field.note_memory(begun, time.time())
    field.fault("a backlog of the whole load, one worker")
    field.healed()


def open_circuit(field: Field) -> None:
    """One worker's memory while a cluster's circuit stays open under load, and while its records are drained."""
    field.start_workers(1)
    field.publish()
    field.wait_until_busy()
    begun = time.time()
    field.kill_server("c1n")
    field.wait(lambda: opened(field, "c1n") > 0, "the circuit to open")
    field.go_on(field.lasting(SHORT_SECONDS, OPEN_SECONDS))
    field.servers.start("c1n")
    field.wait_until_drained()
    field.note_memory(begun, time.time())
    field.figures["diverted"] = field.diverted("c1n")
    field.fault("a circuit open under load, then drained, one worker")
    field.healed()


def truncated_and_replayed(field: Field) -> None:
    """A table is truncated, and replayed beside live traffic by processes that are killed again and again; once more changes
    nothing.
    """
    field.start_workers(1)
    field.publish()
    field.wait(lambda: len(field.publisher.plan) >= field.events // 2, "half of the load", 400)
    _truncate(field, "c1n")
    replay = _killed_again_and_again(field)
    reached = _reached(field, replay)
    last = _replay(field, "resume", replay, "--json")
    assert last["event"] == "done", last
    # whatever was stored after the last commit is stored once more, and nothing before it
    assert last["run"]["records"] == last["records"] - reached, (last, reached)
    field.fault(f"c1n truncated; its replay beside live traffic SIGKILL x{field.kills}; replayed once more")
    field.healed()
    again = _replay(field, "run", *EVERYTHING, "--cluster", "c1n", "--execute", "--json")
    assert again["event"] == "done", again
    field.figures["replayed"] = again["records"]


def range_gone(field: Field) -> None:
    """A replay of what the topic no longer holds is refused, and says what is missing."""
    field.start_workers(1)
    field.publish()
    field.wait_until_busy()
    _let_go_of_the_beginning(field)
    field.wait_until_busy()
    refusal = subprocess.run(
        [*REPLAY, "run", "--from-offset", "0", "--to-latest", "--execute"],
        env=field.world.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refusal.returncode == REFUSED, refusal.stderr
    assert "records are gone" in refusal.stderr, refusal.stderr
    field.fault("replay of a range that the topic has let go")
    field.healed()


def _truncate(field: Field, cluster: str) -> None:
    session = connect(field.registry.clusters[cluster], request_timeout=60)
    try:
        session.execute("TRUNCATE events")
    finally:
        close(session)


def _killed_again_and_again(field: Field) -> str:
    """Start a slow replay, kill it, resume it, kill it; gives its id. Its progress must never go back."""
    words: tuple[str, ...] = (
        "run", *EVERYTHING, "--cluster", "c1n", "--rate", str(field.rate / 2), "--execute", "--json",
    )  # fmt: skip
    replay = ""
    reached = 0
    for _ in field.times(KILLS):
        with field.world.log.open("ab") as log:
            running = subprocess.Popen(
                [*REPLAY, *words],
                env=field.world.environment | {"EVENTSTORE_WORKER__COMMIT_INTERVAL": str(COMMIT_SECONDS)},
                stdout=subprocess.PIPE, stderr=log, start_new_session=True,
            )  # fmt: skip
        assert running.stdout is not None
        lines = (json.loads(line) for line in running.stdout)
        replay = next(line["replay"] for line in lines if line["event"] == "started")
        told = [line["done"] for line in _until_beyond(reached, lines)]
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        running.stdout.close()
        assert told, "the replay ended before it was killed"
        assert told == sorted(told), f"progress went back: {told}"
        assert told[0] >= reached, f"a resumed replay began at {told[0]}, committed was {reached}"
        reached = _reached(field, replay)
        assert reached >= told[-1], f"committed progress went back from {told[-1]} to {reached}"
        field.kills += 1
        words = ("resume", replay, "--json")
    return replay


def _until_beyond(reached: int, lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Lines of progress up to the first that tells of a commit of this run."""
    for line in lines:
        if line["event"] == "progress":
            yield line
            if line["done"] > reached:
                return


def _reached(field: Field, replay: str) -> int:
    """How many records of a replay are committed."""
    plan = Replays.of(field.world.settings).get(replay).plan
    return progress(plan, TopicOffsets(field.world.settings.kafka, plan.topic).committed(plan.group)).done


def _replay(field: Field, *words: str) -> dict[str, Any]:
    """The last line of JSON that a replay command prints."""
    done = subprocess.run([*REPLAY, *words], env=field.world.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return last


def _let_go_of_the_beginning(field: Field) -> None:
    """Have Kafka delete what has been committed, as retention does."""
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP})
    committed = field.topics.committed(field.world.settings.topics.events)
    for answer in admin.delete_records(
        [TopicPartition(*place, offset) for place, offset in committed.items()]
    ).values():
        answer.result()
