"""What the operating system and a worker's metrics tell about a process, without asking the process to measure itself."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.benchmarks.results import Point

SAMPLE_SECONDS = 0.05
TICKS = os.sysconf("SC_CLK_TCK")


class Memory:
    """Samples a process's resident memory from here to the end of the block."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.curve: list[Point] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        start = time.monotonic()
        while not self._end.wait(SAMPLE_SECONDS):
            resident = status_mb(self._pid, "VmRSS")
            if resident is not None:
                self.curve.append(Point(round(time.monotonic() - start, 2), round(resident, 1)))


def status_mb(pid: int, name: str) -> float | None:
    """`VmRSS` or `VmHWM` (the peak) in MB; None if the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = next((line.split()[1] for line in lines if line.startswith(f"{name}:")), None)
    return int(found) * 1024 / 1e6 if found else None


def cpu_seconds(pid: int) -> float:
    """Processor time of the whole process so far."""
    return _cpu(Path(f"/proc/{pid}/stat"))


def thread_seconds(pid: int) -> dict[tuple[int, str], float]:
    """The same by (thread id, thread name)."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        found[int(task.name), (task / "comm").read_text("ascii").strip()] = _cpu(task / "stat")
    return found


def _cpu(stat: Path) -> float:
    fields = stat.read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Scrape:
    """A worker's metrics at one moment."""

    def __init__(self, port: int) -> None:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            self._samples = [sample for family in families for sample in family.samples]

    def total(self, name: str) -> float:
        """Summed over all labels."""
        return sum(sample.value for sample in self._samples if sample.name == name)

    def quantile(self, histogram: str, q: float) -> float | None:
        """Interpolated inside its bucket, as Prometheus does; None if nothing was observed."""
        buckets: dict[float, float] = {}
        for sample in self._samples:
            if sample.name == f"{histogram}_bucket":
                bound = float(sample.labels["le"])
                buckets[bound] = buckets.get(bound, 0.0) + sample.value
        rank = q * max(buckets.values(), default=0.0)
        lower, below = 0.0, 0.0
        for bound, upto in sorted(buckets.items()):
            if upto >= rank and upto:
                share = (rank - below) / (upto - below) if upto > below else 0.0
                return lower if bound == float("inf") else lower + (bound - lower) * share
            lower, below = bound, upto
        return None


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing until the end of the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
