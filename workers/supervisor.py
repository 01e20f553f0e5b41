"""Several workers on one host without an orchestrator: each a process and a group member of its own.

A worker that ends is started again with back-off. One that refuses to go on for safety stops all of them at any time: each
start would let it go a little further, and what one has seen the others will. If the very first ones say that the
configuration is wrong, that is final as well. Either exit code is the supervisor's own. One signal stops all workers, a hangup
reloads the registry of all; the exit code is 0 if every one that ran has stopped as it was told to, else 1.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, sleep
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
PROVEN_SECONDS = 10.0
POLL_SECONDS = 0.2
STOPPED = (ExitCode.DONE, -signal.SIGTERM)
"""How a worker ends that was told to; the second, before it could listen."""


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
        self._proven = False
        """Whether this configuration has ever carried a worker for a while."""
        self._signals: list[int] = []

    def run(self) -> int:
        """Keep the workers running until a signal or a hopeless exit code; returns the exit code to end with."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._heard)
        hopeless: int | None = None
        while hopeless is None and not self._asked_to_stop():
            self._start_due(monotonic())
            sleep(POLL_SECONDS)
            hopeless = self._reap(monotonic())
        codes = self._end()
        if hopeless is not None:
            return hopeless
        return ExitCode.DONE if all(code in STOPPED for code in codes) else ExitCode.FAILED

    def _heard(self, number: int, _: FrameType | None) -> None:
        """A handler may run in the middle of anything: it only takes a note."""
        self._signals.append(number)

    def _asked_to_stop(self) -> bool:
        while self._signals:
            number = self._signals.pop(0)
            log.info("signal for all workers", signal=signal.Signals(number).name)
            if number != signal.SIGHUP:
                return True
            for child in self._children:
                if child.process is not None:
                    child.process.send_signal(signal.SIGHUP)
        return False

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
            self._proven = self._proven or (child.process is not None and now - child.started_at > PROVEN_SECONDS)
            code = child.process.poll() if child.process else None
            if code is None:
                continue
            child.process = None
            if self._is_final(code):
                log.error("worker cannot go on, stopping all", index=child.index, exit_code=code)
                return code
            child.failures = 1 if now - child.started_at > HEALTHY_SECONDS else child.failures + 1
            delay = min(self._settings.worker.restart_backoff_max, 0.5 * 2.0 ** min(child.failures - 1, 30))
            child.start_at = now + delay
            log.error("worker ended, starting it again", index=child.index, exit_code=code, in_seconds=delay)
        return None

    def _is_final(self, code: int) -> bool:
        # a configuration that was good may have become an edit that the other workers have refused
        return code == ExitCode.REFUSED or (code == ExitCode.USAGE and not self._proven)

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
