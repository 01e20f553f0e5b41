"""Several workers on one host without an orchestrator: each a process and a group member of its own.

A worker that ends is started again with back-off. One that says its configuration is wrong ends them all, because it
would say so again. One signal stops all of them; the supervisor's exit code is the worst of theirs.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from types import FrameType

import structlog

from eventstore.config import Settings
from eventstore.errors import ExitCode

log = structlog.stdlib.get_logger(__name__)

SUPERVISOR_PID = "EVENTSTORE_SUPERVISOR_PID"
"""Tells a worker who its supervisor is, so that it stops when that one is gone."""
HEALTHY_SECONDS = 60.0
"""A worker that lived this long starts its back-off anew."""
GRACE_SECONDS = 20.0
"""Beyond the drain time, until a worker that was asked to stop is killed."""
GIVE_UP = (ExitCode.USAGE, ExitCode.REFUSED)


@dataclass(slots=True)
class Child:
    index: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    failures: int = 0


class Supervisor:
    def __init__(self, settings: Settings, count: int, command: Sequence[str] | None = None) -> None:
        self._settings = settings
        self._command = command or (sys.executable, "-m", "eventstore", "worker")
        self._children = [Child(index) for index in range(count)]
        self._stop = threading.Event()
        self._wake = threading.Event()

    def run(self) -> int:
        """Keep the workers running until a signal or a hopeless exit code; returns the exit code to end with."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_stop)
        hopeless: int | None = None
        while not self._stop.is_set() and hopeless is None:
            self._start_due(monotonic())
            self._wake.wait(0.2)
            hopeless = self._reap(monotonic())
        codes = self._end()
        return hopeless if hopeless is not None else max((abs(code) for code in codes), default=0) and ExitCode.FAILED

    def _asked_to_stop(self, number: int, _: FrameType | None) -> None:
        log.info("stopping workers", signal=signal.Signals(number).name)
        self._stop.set()
        self._wake.set()

    def _start_due(self, now: float) -> None:
        for child in self._children:
            if child.process is None and now >= child.start_at:
                child.process = subprocess.Popen(self._command, env=self._environment(child.index))
                child.started_at = now
                log.info("worker started", index=child.index, pid=child.process.pid)

    def _environment(self, index: int) -> dict[str, str]:
        worker = self._settings.worker
        own = {SUPERVISOR_PID: str(os.getpid())}
        if worker.instance_id is not None:
            own["EVENTSTORE_WORKER__INSTANCE_ID"] = f"{worker.instance_id}-{index}"
        if worker.metrics_port:
            own["EVENTSTORE_WORKER__METRICS_PORT"] = str(worker.metrics_port + index)
        return {**os.environ, **own}

    def _reap(self, now: float) -> int | None:
        """Notice workers that ended; an exit code that another start would only repeat is returned."""
        for child in self._children:
            code = child.process.poll() if child.process else None
            if code is None:
                continue
            child.process = None
            if code in GIVE_UP:
                log.error("worker cannot run with this configuration", index=child.index, exit_code=code)
                return code
            child.failures = 1 if now - child.started_at > HEALTHY_SECONDS else child.failures + 1
            delay = min(self._settings.worker.restart_backoff_max, 0.5 * 2.0 ** min(child.failures - 1, 30))
            child.start_at = now + delay
            log.error("worker ended, starting it again", index=child.index, exit_code=code, in_seconds=delay)
        return None

    def _end(self) -> list[int]:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = monotonic() + self._settings.worker.drain_timeout + GRACE_SECONDS
        codes = []
        for process in running:
            try:
                codes.append(process.wait(max(0.0, deadline - monotonic())))
            except subprocess.TimeoutExpired:
                log.error("worker did not stop in time, killing it", pid=process.pid)  # noqa: TRY400 — the fact is enough
                process.kill()
                codes.append(process.wait())
        return codes
