"""How long the workers that stay stand still when another one joins, leaves or dies."""

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

from eventstore.config import GroupProtocol
from tests.benchmarks import worker
from tests.benchmarks.arena import Target
from tests.benchmarks.bench import Bench
from tests.benchmarks.data import wikipedia
from tests.benchmarks.pacer import Pace, begin, pacer
from tests.benchmarks.probe import moments
from tests.benchmarks.results import host_load
from tests.benchmarks.sink import running_sink
from tests.benchmarks.worker import Worker
from tests.waiting import until

RATE = 2_000.0
"""Events a second: little, so that a gap is a pause and not a queue."""
CALM_SECONDS = 4.0
"""Before a change, to see what gaps are normal; and after it."""
LONGEST_SECONDS = 120.0
PARTITIONS = 8


@dataclass(slots=True)
class Group:
    bench: Bench
    topic: str
    target: Target
    protocol: GroupProtocol
    name: str = field(default_factory=lambda: f"bench-{uuid4().hex[:12]}")

    def start(self) -> "Probe":
        notes = self.bench.arena.folder / f"probe-{uuid4().hex[:12]}"
        command = ("tests.benchmarks.probe", str(notes))
        settings = {"EVENTSTORE_WORKER__GROUP_PROTOCOL": self.protocol.value}
        started = worker.start_module(command, self.bench.arena, self.topic, self.target, self.name, **settings)
        return Probe(started, notes)


@dataclass(frozen=True, slots=True)
class Probe:
    worker: Worker
    notes: Path

    def gap(self, since: float, to: float) -> float:
        """Longest time between two chunks finished in a span; the edges count."""
        inside = [moment for moment in moments(self.notes) if since <= moment <= to]
        return max(later - earlier for earlier, later in pairwise([since, *inside, to]))

    def owned(self) -> int:
        changes = self.worker.lines("partitions assigned") + self.worker.lines("partitions gone")
        return len(max(changes, key=lambda line: str(line["timestamp"]))["all"]) if changes else 0


def rebalance(bench: Bench) -> None:
    """The survivors' longest gap when a worker joins, leaves (SIGTERM), dies (SIGKILL), for both group protocols."""
    for protocol in GroupProtocol:
        with ExitStack() as stack:
            cluster, _ = stack.enter_context(running_sink())
            load = wikipedia(int(RATE * LONGEST_SECONDS), bench.now_ms)
            group = Group(bench, bench.arena.topic(), bench.arena.target(cluster, load.tenants), protocol)
            pace = Pace(bench.arena.bootstrap_servers, group.topic, load.count, load.now_ms, RATE, marker_seconds=0.0)
            begin(stack.enter_context(pacer(pace)))
            _changes(group, stack)


def _changes(group: Group, stack: ExitStack) -> None:
    def joined() -> Probe:
        probe = group.start()
        stack.callback(probe.worker.end)
        return probe

    survivors = [joined(), joined()]
    _wait_until_owned(survivors, PARTITIONS // 2)
    third: list[Probe] = []

    def join() -> None:
        third.append(joined())
        until(lambda: bool(moments(third[-1].notes)), "the third worker's first chunk")

    def leave() -> None:
        third[-1].worker.process.send_signal(signal.SIGTERM)
        third[-1].worker.process.wait(worker.STOP_SECONDS)
        _wait_until_owned(survivors, PARTITIONS // 2)

    def die() -> None:
        third[-1].worker.process.kill()
        _wait_until_owned(survivors, PARTITIONS // 2)

    _measure(group, survivors, "joins", join)
    _measure(group, survivors, "leaves", leave)
    join()
    _measure(group, survivors, "dies", die)


def _measure(group: Group, survivors: Sequence[Probe], what: str, change: Callable[[], None]) -> None:
    calm = time.monotonic()
    time.sleep(CALM_SECONDS)
    start = time.monotonic()
    change()
    time.sleep(CALM_SECONDS)
    end = time.monotonic()
    figures = {
        "gap_before_s": max(probe.gap(calm, start) for probe in survivors),
        "gap_s": max(probe.gap(start, end) for probe in survivors),
    }
    rounded = {name: round(seconds, 3) for name, seconds in figures.items()}
    group.bench.record("rebalance", f"{group.protocol.value}: one {what}", rounded | {"host_load": host_load()})


def _wait_until_owned(probes: Sequence[Probe], partitions: int) -> None:
    until(lambda: all(probe.owned() == partitions for probe in probes), f"each survivor to own {partitions} partitions")
