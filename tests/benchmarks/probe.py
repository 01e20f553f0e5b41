"""A worker that also notes when it has finished each chunk: `python -m tests.benchmarks.probe FILE`."""

import asyncio
import sys
import time
from pathlib import Path
from typing import TextIO

import uvloop

from eventstore.config import load_settings
from eventstore.ingest.meter import Meter
from eventstore.logs import setup_logging
from workers.ingest import IngestWorker


class NotingMeter(Meter):
    def __init__(self, notes: TextIO) -> None:
        super().__init__()
        self._notes = notes

    def end(self, records: int) -> None:
        super().end(records)
        self._notes.write(f"{time.monotonic()}\n")  # one clock for all processes of a host


def moments(notes: Path) -> list[float]:
    """When the probe's chunks were finished, on `time.monotonic`; a half-written line does not count."""
    if not notes.exists():
        return []
    text = notes.read_text("ascii")
    return [float(line) for line in text[: text.rfind("\n") + 1].splitlines()]


if __name__ == "__main__":
    settings = load_settings()
    setup_logging(settings.log)
    with (
        Path(sys.argv[1]).open("w", buffering=1) as file,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        sys.exit(runner.run(IngestWorker(settings, meter=NotingMeter(file)).run()))
