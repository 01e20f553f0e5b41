"""How long after it was published an event can be read, while the store works at half of what it can."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import quantiles

import orjson
from cassandra.cluster import Session
from cassandra.query import BoundStatement

from eventstore.store.session import close, connect
from tests.benchmarks import data, worker
from tests.benchmarks.arena import Load, Target
from tests.benchmarks.bench import Bench
from tests.benchmarks.pacer import Pace, begin, finish, marker_uid, pacer
from tests.benchmarks.results import host_load
from workers.process import settle_garbage

MARKER_SECONDS = 0.05
POLL_SECONDS = 0.005
"""Asked more often, the reads are themselves the load that makes a node late."""
GIVE_UP_SECONDS = 30.0
STEP = 1.25
"""Between two rates that are tried."""
STEP_SECONDS = 5.0
KEPT_UP_SECONDS = 1.0
"""A rate is too much if its records are not done with so long after the last was published."""
Beside = Callable[[worker.Worker], AbstractContextManager[None]]
"""What goes on while events are published, given the worker that stores them."""
READ = "SELECT properties FROM events WHERE uid = ? AND tenant = ? AND bid = ?"


def freshness(bench: Bench) -> None:
    """Published to readable, at shares of the rate of fresh events that store, Kafka, worker and producer keep up with together."""
    most = limit(bench)
    for name, share in (("half", 0.5), ("quarter", 0.25), ("tenth", 0.1)):
        rate = most * share
        count = int(rate * bench.scale.seconds)
        load = Load(bench.arena.topic(), data.wikipedia(count, bench.now_ms), Counter())
        with bench.arena.keyspace(load.data.tenants) as target:
            seconds, users = measure(bench, load, target, rate)
            bench.arena.check(target, users)
        cuts = quantiles(seconds, n=100, method="inclusive")
        figures = {"load": round(rate), "events": len(seconds), "host_load": host_load()}
        fresh = {"fresh_p50_ms": cuts[49], "fresh_p99_ms": cuts[98], "fresh_max_ms": max(seconds)}
        bench.record("freshness", name, figures | {key: round(value * 1_000, 1) for key, value in fresh.items()})


def limit(bench: Bench) -> float:
    """Fresh events a second that are kept up with: the greatest rate that was tried without its lag growing.

    A backlog's rate says little of it: a backlog's events share batches, and nobody publishes meanwhile.
    """
    load = bench.arena.load(data.wikipedia(bench.scale.events, bench.now_ms))
    with bench.arena.keyspace(load.data.tenants) as target:
        figures = worker.ingest(bench.arena, load, target).figures  # warms the store up, too
    rate = figures["per_second"] / figures["rows_per_batch"] / 2
    while _keeps_up(bench, rate * STEP):
        rate *= STEP
    return rate


def _keeps_up(bench: Bench, rate: float) -> bool:
    """Whether a worker is done with what is published at this rate as soon as its producer is."""
    load = Load(bench.arena.topic(), data.wikipedia(int(rate * STEP_SECONDS), bench.now_ms), Counter())
    pace = Pace(bench.arena.bootstrap_servers, load.topic, load.events, load.data.now_ms, rate, 0.0)
    with (
        bench.arena.keyspace(load.data.tenants) as target,
        worker.workers(bench.arena, load.topic, target) as (one,),
        pacer(pace) as producer,
    ):
        one.wait_for("partitions assigned")
        due = begin(producer) + STEP_SECONDS
        finish(producer)
        worker.wait_until_done(bench.arena, load, [one], pause=0.05)
        late = time.time() - due
    bench.record("freshness", f"{rate:.0f}/s", {"load": round(rate), "seconds_late": late, "host_load": host_load()})
    return late < KEPT_UP_SECONDS


def alone(_: worker.Worker) -> AbstractContextManager[None]:
    return nullcontext()


def measure(
    bench: Bench, load: Load, target: Target, rate: float, beside: Beside = alone
) -> tuple[list[float], Counter[tuple[str, str]]]:
    """(seconds until each marker could be read, all events by user)."""
    pace = Pace(bench.arena.bootstrap_servers, load.topic, load.events, load.data.now_ms, rate, MARKER_SECONDS)
    with worker.workers(bench.arena, load.topic, target) as (one,), pacer(pace) as producer:
        one.wait_for("partitions assigned")
        with beside(one):
            seconds = _read_markers(target, load.data.tenants[0], begin(producer), load.events / rate)
            markers = finish(producer)
        worker.wait_until_done(bench.arena, load, [one])
    users = Counter((event.tenant, event.uid) for event in load.data)
    users.update((load.data.tenants[0], marker_uid(number)) for number in range(markers))
    return seconds, users


def _read_markers(target: Target, tenant: str, start: float, seconds: float) -> list[float]:
    """Wait for one marker after the other, from the moment each is due."""
    settle_garbage()  # else what the benchmark itself holds is looked through in the midst of it, for 100 ms and more
    session = connect(target.cluster)
    bid = target.registry.tiers["t30"].buckets.bid(int(start * 1_000))
    read = session.prepare(READ)
    waits: list[float] = []
    try:
        while len(waits) * MARKER_SECONDS < seconds:
            time.sleep(max(0.0, start + len(waits) * MARKER_SECONDS - time.time()))
            published = _wait_for_row(session, read.bind((marker_uid(len(waits)), tenant, bid)))
            waits.append(time.time() - published / 1e9)
    finally:
        close(session)
    return waits


def _wait_for_row(session: Session, bound: BoundStatement) -> int:
    """When the marker was published, in ns since the epoch, as soon as it can be read."""
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while (row := session.execute(bound).one()) is None:
        assert time.monotonic() < deadline, f"a marker could not be read within {GIVE_UP_SECONDS:.0f} s"
        time.sleep(POLL_SECONDS)
    at: int = orjson.loads(row.properties)["at_ns"]
    return at
