"""What a replay costs an event beside live ingest of the same, and what it does to the freshness of live events."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median, quantiles
from typing import Any, Final

import orjson

from tests.benchmarks import data, freshness, worker
from tests.benchmarks.arena import Load, Target
from tests.benchmarks.bench import Bench
from tests.benchmarks.results import host_load
from tests.waiting import until

RUN = ("eventstore", "replay", "run", "--from-earliest", "--execute", "--json")
SHARE = 0.1
"""Of the rate of fresh events that the store takes: what live traffic asks for, and as much what the replay may."""
LASTING: Final = 2
"""How often the replay's range holds all events, so that it outlasts what is measured."""
END_SECONDS = 300.0


def replay(bench: Bench) -> None:
    """Live ingest and a replay of the same events in turns; then live events' freshness without and with a replay beside."""
    load = bench.arena.load(data.wikipedia(bench.scale.events, bench.now_ms))
    costs: dict[str, list[float]] = {"live": [], "replay": []}
    for _ in range(bench.scale.rounds):
        with bench.arena.keyspace(load.data.tenants) as target:
            figures = worker.ingest(bench.arena, load, target).figures
            costs["live"].append(figures["cpu_us"])
            bench.record("replay", "live", figures)
        with bench.arena.keyspace(load.data.tenants) as target:
            figures = _replayed(bench, load, target)
            bench.arena.check(target, load.users)
            costs["replay"].append(figures["cpu_us"])
            bench.record("replay", "replay", figures)
    bench.record("replay", "ratio", {"cpu_ratio": round(median(costs["replay"]) / median(costs["live"]), 2)})
    _beside(bench)


def _replayed(bench: Bench, load: Load, target: Target) -> dict[str, float]:
    """CPU of the process that stores, without the one that watches over it: that is the same however much there is to do."""
    running = worker.start_module((*RUN, "--to-latest"), bench.arena, load.topic, target, "bench-replay")
    try:
        assert running.process.wait(END_SECONDS) == 0, running.log.read_text()[-2_000:]
    finally:
        running.end()
    (told,) = _told(running, "done")
    account = told["run"]
    assert account["records"] == load.events
    cpu_us = account["cpu_seconds"] / account["records"] * 1e6
    return {"cpu_us": round(cpu_us, 2), "per_second": round(load.events / told["seconds"]), "host_load": host_load()}


def _told(running: worker.Worker, event: str) -> list[dict[str, Any]]:
    """What the replay has said as a script hears it."""
    lines = (orjson.loads(line) for line in running.log.read_bytes().splitlines() if line.startswith(b"{"))
    return [line for line in lines if line.get("event") == event and "replay" in line]


def _beside(bench: Bench) -> None:
    rate = freshness.limit(bench) * SHARE
    events = data.wikipedia(int(rate * bench.scale.seconds), bench.now_ms)
    for name, surroundings in (("calm", _stored), ("beside a replay", _replaying)):
        topic = bench.arena.topic()
        load = Load(topic, events, bench.arena.publish(topic, events))
        for _ in range(1, LASTING):
            bench.arena.publish(topic, events)
        with bench.arena.keyspace(events.tenants) as target:
            beside = partial(surroundings, bench, load, target, rate)
            seconds, users = freshness.measure(bench, load, target, rate, beside)
            bench.arena.check(target, users)
        cuts = quantiles(seconds, n=100, method="inclusive")
        figures = {"load": round(rate), "events": len(seconds), "host_load": host_load()}
        fresh = {"fresh_p50_ms": cuts[49], "fresh_p99_ms": cuts[98]}
        bench.record("replay", name, figures | {key: round(value * 1_000, 1) for key, value in fresh.items()})


@contextmanager
def _stored(bench: Bench, load: Load, _target: Target, _rate: float, live: worker.Worker) -> Iterator[None]:
    """The topic holds all events already, before they come once more at a steady rate."""
    worker.wait_until_done(bench.arena, load, [live])
    yield


@contextmanager
def _replaying(bench: Bench, load: Load, target: Target, rate: float, live: worker.Worker) -> Iterator[None]:
    with _stored(bench, load, target, rate, live):
        running = worker.start_module((*RUN, "--rate", str(rate)), bench.arena, load.topic, target, live.group)
        try:
            until(lambda: any(line["done"] for line in _told(running, "progress")), "the replay to store something")
            yield
            assert running.alive(), "it must run as long as freshness is measured"
            running.stop()
        finally:
            running.end()
