"""Where a worker's CPU goes, stage by stage, per event: the lane worker against the bottomless store.

Two views. Sampled: the CPU of every thread as the operating system counts it, divided among the stages by py-spy's samples of
the running worker. Alone: single steps called in a loop over the same events, without threads, sockets or sampling. Sampling
halts the process for moments, which inflates no share but may shift some; where both views exist they should agree.
"""

import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

from confluent_kafka import Message

from eventstore.events.cells import STATEMENTS, Batch
from eventstore.events.decode import decode_event
from eventstore.ingest.admission import ClockRules
from eventstore.ingest.express import Express
from eventstore.store.lane.frames import Prepared, write
from eventstore.stream.chunk import Chunk, Member
from eventstore.tenancy import Registry, Tenant
from tests.benchmarks import data, worker
from tests.benchmarks.bench import Bench
from tests.benchmarks.sink import running_sink
from tests.benchmarks.stages import Stage, stage_of
from tests.benchmarks.watch import thread_seconds
from tests.builders import registry, tier

RATE = 400
"""Samples a second."""
SAMPLER_SECONDS = 60
CHUNK = 2_000
REPEATS = 5

Cost = dict[Stage, float]
"""Microseconds of CPU an event."""


class Stack(NamedTuple):
    thread: int
    frames: tuple[str, ...]
    """The innermost first."""
    samples: int


def profile(bench: Bench) -> str:
    """A table of both views."""
    load = bench.arena.load(data.wikipedia(bench.scale.events, bench.now_ms))
    with running_sink() as (cluster, _), ExitStack() as stack:
        target = bench.arena.target(cluster, load.data.tenants)
        (one,) = stack.enter_context(worker.workers(bench.arena, load.topic, target))
        one.wait_for("partitions assigned")
        before = thread_seconds(one.pid)
        sampler = _sample(one.pid, raw := bench.arena.folder / "profile.raw")
        stack.callback(sampler.kill)
        worker.wait_until_done(bench.arena, load, [one], pause=0.02)
        after = thread_seconds(one.pid)
        one.stop()
        sampler.wait(worker.STOP_SECONDS)
        assert raw.exists(), "py-spy wrote no samples: it must be allowed to trace processes of its own user (ptrace)"
    threads = {thread: after[thread] - before.get(thread, 0.0) for thread in after}
    return table(attribute(threads, stacks(raw), one.pid, load.events), alone(load.data))


def stacks(raw: Path) -> list[Stack]:
    """py-spy's folded stacks: `thread (TID): name;outer;...;inner COUNT`."""
    found = []
    for line in raw.read_text("utf-8").splitlines():
        folded, _, count = line.rpartition(" ")
        head, *frames = folded.split(";")
        thread = int(head.partition("(")[2].partition(")")[0])
        found.append(Stack(thread, tuple(reversed(frames)), int(count)))
    return found


def attribute(threads: dict[tuple[int, str], float], sampled: list[Stack], main: int, events: int) -> Cost:
    """Each thread's CPU, shared out by its samples; threads that never ran Python are librdkafka's and fetch."""
    cost: defaultdict[Stage, float] = defaultdict(float)
    for (thread, _), seconds in threads.items():
        shares: Counter[Stage] = Counter()
        for each in sampled:
            if each.thread == thread:
                shares[stage_of(each.frames) or (Stage.LOOP if thread == main else Stage.FETCH)] += each.samples
        for stage, samples in (shares or Counter({Stage.FETCH: 1})).items():
            cost[stage] += seconds / events * 1e6 * samples / max(1, shares.total())
    return dict(cost)


def alone(events: data.Dataset) -> dict[str, float]:
    """Steps by themselves, in microseconds an event; the middle of some repeats."""
    some = list(islice(events, 20 * CHUNK))
    where = tier()
    known: Registry = registry(*(Tenant(name, where) for name in events.tenants))
    chunks = [
        Chunk("events", 0, [_message(e, start + n) for n, e in enumerate(some[start : start + CHUNK])], 0, Member())
        for start in range(0, len(some), CHUNK)
    ]
    express = Express(ClockRules())
    now = events.now_ms * 1_000
    batches: list[Batch] = []

    def decode() -> None:
        for event in some:
            decode_event(event.value)

    def sort() -> None:
        batches.clear()
        for chunk in chunks:
            for each in express.sort(chunk, known, now).batches.values():
                batches.extend(each)

    def frame() -> None:
        for batch in batches:
            b"".join(write(prepared, batch)[1])

    prepared = Prepared.of(dict.fromkeys(STATEMENTS, b"s" * 16))
    return {
        name: round(median(_timed(step) for _ in range(REPEATS)) / len(some) * 1e6, 3)
        for name, step in (("decode", decode), ("sort (decode to group)", sort), ("frame", frame))
    }


def table(cost: Cost, single: dict[str, float]) -> str:
    """As Markdown."""
    total = sum(cost.values())
    lines = ["| stage | CPU us/event | share |", "|---|---:|---:|"]
    lines += [f"| {s.value} | {cost.get(s, 0.0):.2f} | {cost.get(s, 0.0) / total:.0%} |" for s in Stage]
    lines += [f"| **all** | **{total:.2f}** | |", "", "| step alone | CPU us/event |", "|---|---:|"]
    lines += [f"| {name} | {us:.2f} |" for name, us in single.items()]
    return "\n".join(lines)


def _sample(pid: int, raw: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [str(Path(sys.executable).with_name("py-spy")), "record", "--threads", "--pid", str(pid), "--rate", str(RATE), "--duration", str(SAMPLER_SECONDS),
         "--format", "raw", "--output", str(raw)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _timed(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def _message(event: data.Event, offset: int) -> Message:
    return Message(topic="events", partition=0, offset=offset, key=event.key, value=event.value)
