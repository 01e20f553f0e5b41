"""Our own worker as a contestant: started as an operator would, watched from outside until nothing is left to do."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import orjson

from eventstore.stream.lag import GroupLag
from tests.benchmarks.arena import Arena, Load, Target
from tests.benchmarks.results import Point, host_load
from tests.benchmarks.watch import Memory, Scrape, status_mb
from tests.fake_cql import free_port
from tests.waiting import until

CATCH_UP_SECONDS = 300.0
STOP_SECONDS = 30.0
WAITING = {"EVENTSTORE_CIRCUIT__SILENCE": "120", "EVENTSTORE_CIRCUIT__PATIENCE": "120"}
"""However slow the store of a busy machine is: what is diverted and brought home cannot be compared."""
REPOSITORY = Path(__file__).parent.parent.parent


@dataclass(slots=True)
class Worker:
    process: "subprocess.Popen[bytes]"
    log: Path
    group: str
    metrics_port: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def lines(self, event: str) -> list[dict[str, Any]]:
        found = [orjson.loads(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]
        return [line for line in found if line.get("event") == event]

    def wait_for(self, event: str) -> dict[str, Any]:
        until(lambda: bool(self.lines(event)) or not self.alive(), f"{event!r}")
        assert self.alive(), self.log.read_text()
        return self.lines(event)[0]

    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(STOP_SECONDS)

    def wait_for_end(self) -> dict[str, Any]:
        """The closing line."""
        self.process.wait(STOP_SECONDS)
        closing = self.lines("worker stopped")
        assert closing, f"the worker did not end well: {self.log.read_text()[-2_000:]}"
        return closing[0]

    def end(self) -> None:
        """However it stands."""
        if self.alive():
            self.process.kill()
        self.process.wait()


@contextmanager
def workers(
    arena: Arena, topic: str, target: Target, settings: Mapping[str, str] = MappingProxyType({}), count: int = 1
) -> Iterator[list[Worker]]:
    """So many workers of one new group; whatever becomes of the block, none is left."""
    group = f"bench-{uuid4().hex[:12]}"
    started: list[Worker] = []
    try:
        started.extend(start(arena, topic, target, group, **settings) for _ in range(count))
        yield started
    finally:
        for worker in started:
            worker.end()


def start(arena: Arena, topic: str, target: Target, group: str, **settings: str) -> Worker:
    """One worker; the caller ends it."""
    return start_module(("eventstore", "worker"), arena, topic, target, group, **settings)


def start_module(
    command: tuple[str, ...], arena: Arena, topic: str, target: Target, group: str, **settings: str
) -> Worker:
    """`python -m command` with a worker's environment."""
    port = free_port()
    given = WAITING | settings
    environment = arena.environment(topic, target, group, EVENTSTORE_WORKER__METRICS_PORT=str(port), **given)
    environment["PYTHONPATH"] = str(REPOSITORY)
    log = arena.folder / f"worker-{uuid4().hex[:12]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, stdout=output, stderr=output, cwd=arena.folder
        )
    return Worker(process, log, group, port)


@dataclass(frozen=True, slots=True)
class Ingested:
    figures: dict[str, float]
    curve: list[Point]


def ingest(arena: Arena, load: Load, target: Target, **settings: str) -> Ingested:
    """Run one worker over the whole load, stop it, and give its own figures and those of the operating system."""
    with workers(arena, load.topic, target, settings) as (worker,), Memory(worker.pid) as memory:
        wait_until_done(arena, load, [worker])
        scrape = Scrape(worker.metrics_port)
        peak = status_mb(worker.pid, "VmHWM") or 0.0
        worker.stop()
        closing = worker.wait_for_end()
    stored = scrape.total("eventstore_stored_total")
    # latest rows come on top
    assert stored >= load.events, f"expected {load.events} rows acknowledged, got {stored:.0f}; see {worker.log}"
    figures = {
        "cpu_us": closing["cpu_us_per_record"],
        "per_second": closing["records_per_second"],
        "peak_mb": round(peak, 1),
        **batches(scrape),
        "host_load": host_load(),
    }
    return Ingested(figures, memory.curve)


def batches(scrape: Scrape) -> dict[str, float]:
    """How rows were grouped and how long their batches took."""
    stored, batches_ = scrape.total("eventstore_stored_total"), scrape.total("eventstore_batches_total")
    figures = {"batches": batches_, "rows_per_batch": round(stored / batches_, 2)} if batches_ else {}
    for name, q in (("write_p50_ms", 0.5), ("write_p99_ms", 0.99)):
        if (seconds := scrape.quantile("eventstore_write_seconds", q)) is not None:
            figures[name] = round(seconds * 1_000, 2)
    return figures


def wait_until_done(arena: Arena, load: Load, running: list[Worker], pause: float = 0.2) -> None:
    """Until the group has committed the whole topic."""
    deadline = time.monotonic() + CATCH_UP_SECONDS
    with GroupLag(arena.kafka, running[0].group, load.topic) as group:
        while (lag := group.read().lag) > 0:
            dead = next((worker for worker in running if not worker.alive()), None)
            assert dead is None, f"a worker ended too early: {dead and dead.log.read_text()[-2_000:]}"
            assert time.monotonic() < deadline, f"{lag} records left after {CATCH_UP_SECONDS:.0f} s"
            time.sleep(pause)
