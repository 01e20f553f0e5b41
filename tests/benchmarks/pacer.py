"""A producer at a steady rate: `python -m tests.benchmarks.pacer JOB`; begins at the moment it reads from its input.

Between the load's events it publishes markers: events of users of their own that say when they were handed to Kafka's client.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import msgspec
import orjson

from eventstore.config import KafkaSettings, ProducerSettings
from eventstore.stream.producer import RecordProducer
from tests.benchmarks import data

TICK_SECONDS = 0.002
LEAD_SECONDS = 0.5


class Pace(msgspec.Struct, frozen=True):
    bootstrap_servers: str
    topic: str
    count: int
    now_ms: int
    rate: float
    """Events a second."""
    marker_seconds: float
    """Between two markers; 0: none."""


def marker_uid(number: int) -> str:
    return f"marker-{number}"


@contextmanager
def pacer(pace: Pace) -> Iterator["subprocess.Popen[str]"]:
    """The process, ready to begin."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.pacer", msgspec.json.encode(pace).decode()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def begin(process: "subprocess.Popen[str]") -> float:
    """Let it begin in a moment; the time when it will, in seconds since the epoch."""
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n", "the paced producer failed; see its error above"
    start = time.time() + LEAD_SECONDS
    process.stdin.write(f"{start}\n")
    process.stdin.flush()
    return start


def finish(process: "subprocess.Popen[str]") -> int:
    """Wait until it has published everything; the number of markers among it."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def main() -> None:
    pace = msgspec.json.decode(sys.argv[1], type=Pace)
    load = data.wikipedia(pace.count, pace.now_ms)
    events = [(event.key, event.value) for event in load]
    producer = RecordProducer(KafkaSettings(bootstrap_servers=pace.bootstrap_servers), ProducerSettings(), pace.topic)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    start = float(sys.stdin.readline())
    waiting = iter(events)
    published = markers = 0
    while published < len(events):
        time.sleep(max(TICK_SECONDS, start - time.time()))
        since = time.time() - start
        for key, value in islice(waiting, max(0, int(since * pace.rate) - published)):
            producer.publish(key, value)
            published += 1
        while pace.marker_seconds and since >= markers * pace.marker_seconds:
            _mark(producer, load.tenants[0], markers)
            markers += 1
    producer.confirm()
    sys.stdout.write(f"{markers}\n")


def _mark(producer: RecordProducer, tenant: str, number: int) -> None:
    uid, at = marker_uid(number), time.time_ns()
    event = {"tenant": tenant, "uid": uid, "event": "marked", "timestamp": at // 1_000_000, "properties": {"at_ns": at}}
    producer.publish(f"{tenant}:{uid}".encode(), orjson.dumps(event))


if __name__ == "__main__":
    main()
