"""Our worker alone: against a store without limits, and with loads of every shape."""

import time
from contextlib import ExitStack

from tests.benchmarks import data, worker
from tests.benchmarks.arena import Load
from tests.benchmarks.bench import Bench
from tests.benchmarks.results import host_load
from tests.benchmarks.sink import running_sink
from tests.benchmarks.watch import Memory, Scrape, cpu_seconds, status_mb, stopped
from tests.waiting import until

PATIENT = {"EVENTSTORE_WRITER__REQUEST_TIMEOUT": "120", "EVENTSTORE_WORKER__COMMIT_INTERVAL": "0.1"}
"""For workers whose store is stopped on purpose."""
STALL_SECONDS = 5.0


def sink(bench: Bench) -> None:
    """One worker and a store that only counts: the worker's own limit."""
    load = bench.arena.load(data.wikipedia(bench.scale.events, bench.now_ms))
    for _ in range(bench.scale.rounds):
        found = _into_sink(bench, load)
        bench.record("sink", "lane", found.figures | {"per_core": per_core(found.figures["cpu_us"])}, found.curve)


def sizes(bench: Bench) -> None:
    """Small, middling and large events: time, and above all memory."""
    for size, share in ((200, 1.0), (1_000, 1.0), (8_000, 0.2)):
        load = bench.arena.load(data.sized(bench.scale.part(share), bench.now_ms, size))
        found = _into_sink(bench, load)
        bench.record("sizes", f"{size} B", found.figures | {"events": load.events}, found.curve)


def tenants(bench: Bench) -> None:
    """The same users, spread over few and many tenants."""
    for count in (1, 100, 5_000):
        load = bench.arena.load(data.many_tenants(bench.scale.part(0.5), bench.now_ms, count))
        bench.record("tenants", f"{count} tenants", _into_sink(bench, load).figures)


def latest(bench: Bench) -> None:
    """What it costs to keep each user's newest event at hand, in turns with not doing so."""
    load = bench.arena.load(data.wikipedia(bench.scale.events, bench.now_ms))
    for _ in range(bench.scale.rounds):
        for name, fields in (("no list", {}), ("listed", {"latest": ["page_edited"]})):
            found = _into_sink(bench, load, **fields)
            bench.record("latest", name, found.figures | {"per_core": per_core(found.figures["cpu_us"])})


def hot_user(bench: Bench) -> None:
    """Every event is one user's: one Kafka partition, one CQL partition, on the real store."""
    load = bench.arena.load(data.hot_user(bench.scale.part(0.5), bench.now_ms))
    with bench.arena.keyspace(load.data.tenants) as target:
        found = worker.ingest(bench.arena, load, target)
        bench.arena.check(target, load.users)
    bench.record("hot", "one user", found.figures, found.curve)


def backlog(bench: Bench) -> None:
    """Draining a backlog while the store stalls in the middle: memory must not follow the backlog."""
    large = data.sized(bench.scale.part(0.2), bench.now_ms, 8_000)
    for load in (bench.arena.load(data.wikipedia(bench.scale.events, bench.now_ms)), bench.arena.load(large)):
        found = _with_stall(bench, load)
        bench.record("backlog", load.data.name, found.figures, found.curve)


def several(bench: Bench) -> None:
    """One, two and four workers of one group, let loose on the backlog at the same moment."""
    load = bench.arena.load(data.wikipedia(bench.scale.events, bench.now_ms))
    for count in (1, 2, 4):
        bench.record("workers", f"{count} workers", _together(bench, load, count))


def per_core(cpu_us: float) -> float:
    return round(1e6 / cpu_us)


def _into_sink(bench: Bench, load: Load, **fields: object) -> worker.Ingested:
    with running_sink() as (cluster, _):
        return worker.ingest(bench.arena, load, bench.arena.target(cluster, load.data.tenants, **fields))


def _with_stall(bench: Bench, load: Load) -> worker.Ingested:
    with running_sink() as (cluster, pid), ExitStack() as stack:
        target = bench.arena.target(cluster, load.data.tenants)
        (one,) = stack.enter_context(worker.workers(bench.arena, load.topic, target, PATIENT))
        memory = stack.enter_context(Memory(one.pid))
        one.wait_for("partitions assigned")
        with stopped(pid):
            time.sleep(min(STALL_SECONDS, bench.scale.seconds))
        worker.wait_until_done(bench.arena, load, [one])
        figures = {"events": float(load.events), "peak_mb": round(status_mb(one.pid, "VmHWM") or 0.0, 1)}
        one.stop()
        closing = one.wait_for_end()
    return worker.Ingested(figures | {"cpu_us": closing["cpu_us_per_record"], "host_load": host_load()}, memory.curve)


def _together(bench: Bench, load: Load, count: int) -> dict[str, float]:
    """The store stands still until every member has its partitions, so that none has a lead."""
    with running_sink() as (cluster, pid), ExitStack() as stack:
        target = bench.arena.target(cluster, load.data.tenants)
        group = stack.enter_context(worker.workers(bench.arena, load.topic, target, PATIENT, count))
        for each in group:
            each.wait_for("lane connected")  # before the store stands still: connecting needs its answers
        with stopped(pid):
            _wait_for_balance(group)
            before, cpu = _consumed(group), sum(cpu_seconds(each.pid) for each in group)
        start = time.monotonic()
        worker.wait_until_done(bench.arena, load, group, pause=0.02)
        seconds = time.monotonic() - start
        cpu = sum(cpu_seconds(each.pid) for each in group) - cpu
        peak = max(status_mb(each.pid, "VmHWM") or 0.0 for each in group)
        events = load.events - before
        for each in group:
            each.stop()
    cpu_us = cpu / events * 1e6
    return {
        "events": events, "cpu_us": round(cpu_us, 2), "per_second": round(events / seconds),
        "per_core": per_core(cpu_us), "peak_mb": round(peak, 1), "host_load": host_load(),
    }  # fmt: skip


def _wait_for_balance(group: list[worker.Worker]) -> None:
    """Until all partitions are spread over all members: each has its share of the eight."""

    def owned(member: worker.Worker) -> int:
        changes = member.lines("partitions assigned") + member.lines("partitions gone")
        return len(max(changes, key=lambda line: line["timestamp"])["all"]) if changes else 0

    until(lambda: all(owned(member) == 8 // len(group) for member in group), "an even assignment")


def _consumed(group: list[worker.Worker]) -> float:
    return sum(Scrape(each.metrics_port).total("eventstore_consumed_total") for each in group)
