"""The demo's worker: started as an operator would start it, watched until it has caught up, then stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from eventstore.config import Settings
from eventstore.errors import EventstoreError
from eventstore.stream.backlogs import Backlogs
from eventstore.stream.lag import GroupLag

POLL_SECONDS: Final = 0.2
CATCH_UP_SECONDS: Final = 180.0
STOP_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Ingested:
    """The figures of the worker's closing log line."""

    records: int
    seconds: float
    records_per_second: int
    cpu_us_per_record: float


def ingest(settings: Settings, log: Path, on_lag: Callable[[int], None]) -> Ingested:
    """Run one worker until the group has no lag and nothing is diverted; its log goes to `log`.

    Raises:
        EventstoreError: the worker ended by itself, or did not catch up in time.
    """
    diverted = Backlogs(settings.kafka, settings.topics, settings.worker.group)
    with _worker(log) as worker, GroupLag(settings.kafka, settings.worker.group, settings.topics.events) as group:
        deadline = time.monotonic() + CATCH_UP_SECONDS
        # a cluster that stood still for a moment gets its records from its retry topic
        while (lag := group.read().lag or sum(diverted.read().values())) > 0:
            on_lag(lag)
            if worker.poll() is not None:
                raise EventstoreError(
                    f"the worker ended with exit code {worker.returncode}: {_last_words(log)}; see {log}"
                )
            if time.monotonic() > deadline:
                raise EventstoreError(f"expected the worker to catch up within {CATCH_UP_SECONDS:.0f} s; see {log}")
            time.sleep(POLL_SECONDS)
        on_lag(0)
    return _figures(log)


@contextmanager
def _worker(log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "eventstore", "worker"],
            stdout=file,
            stderr=file,
            env={**os.environ, "EVENTSTORE_LOG__FORMAT": "json"},
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _figures(log: Path) -> Ingested:
    """What the worker said when it stopped; all zero if there was nothing to do."""
    closing = next((line for line in reversed(_lines(log)) if line.get("event") == "worker stopped"), None)
    if closing is None:
        raise EventstoreError(f"expected the worker to say what it did when it stopped, found nothing; see {log}")
    return Ingested(
        closing["records"],
        closing.get("seconds", 0.0),
        closing.get("records_per_second", 0),
        closing.get("cpu_us_per_record", 0.0),
    )


def _last_words(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _lines(log: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in log.read_bytes().splitlines() if line.startswith(b"{")]
