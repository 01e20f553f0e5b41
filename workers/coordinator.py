"""Runs a replay to its end: starts its processes, follows its progress in Kafka, hears what operators want of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, sleep
from types import FrameType
from typing import NamedTuple, Protocol

import msgspec

from eventstore.clock import now_ms
from eventstore.config import Settings
from eventstore.errors import EventstoreError, TransientKafkaError
from eventstore.replay.plan import Plan, Progress, progress
from eventstore.replay.run import Account
from eventstore.replay.state import Replays, Status
from eventstore.stream.offsets import TopicOffsets
from workers.supervisor import GRACE_SECONDS, SUPERVISOR_PID

LOOK_SECONDS = 0.5
"""Between two looks at the progress."""
STATUS_SECONDS = 2.0
"""Between two looks at what operators want."""


PATIENCE_SECONDS = 120.0
"""How long brokers may give no answer before a run is given up."""


class Standing(Protocol):
    """Where a group stands (`TopicOffsets` tells)."""

    def committed(self, group: str) -> dict[int, int]: ...


class Outcome(NamedTuple):
    """How a run of a replay ended."""

    status: Status
    """Still `running`: it was stopped here, and can be resumed."""
    progress: Progress
    account: Account
    """Of the processes of this run."""
    seconds: float


@dataclass(slots=True)
class Coordinator:
    """Not safe for several threads; takes over SIGTERM and SIGINT while it runs."""

    settings: Settings
    plan: Plan
    """Of a replay that is on record."""
    workers: int
    on_progress: Callable[[Progress], None]
    _children: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    _stop: bool = False
    _next_status: float = 0.0

    def run(self) -> Outcome:
        """Returns when the replay is done, paused, cancelled, or a signal stops it here.

        Raises:
            RefusedError: it has been cancelled, or is done already.
            EventstoreError: a process failed (it has said why), or Kafka cannot be used. What was stored is committed;
                resuming goes on from there.
        """
        plan = self.plan
        offsets = TopicOffsets(self.settings.kafka, plan.topic)
        replays = Replays.of(self.settings)
        started = monotonic()
        accounts: list[Account] = []
        with Signals(self.ask_to_stop):
            replays.become(plan.id, Status.RUNNING, now_ms())
            if missing := plan.start_offsets(offsets.committed(plan.group)):
                offsets.move(plan.group, missing)
            try:
                self._start()
                status = self.follow(offsets, replays)
            finally:
                accounts += self._end()
        reached = progress(plan, offsets.committed(plan.group))
        self.on_progress(reached)
        return Outcome(ended(replays, reached, plan, status), reached, sum(accounts, Account()), monotonic() - started)

    def ask_to_stop(self) -> None:
        self._stop = True

    def _start(self) -> None:
        environment = {**os.environ, SUPERVISOR_PID: str(os.getpid())}
        for index in range(self.workers):
            command = [
                sys.executable, "-m", "eventstore", "replay", "work", self.plan.id,
                "--index", str(index), "--of", str(self.workers),
            ]  # fmt: skip
            self._children.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE))

    def follow(self, offsets: Standing, replays: Replays) -> Status:
        """Until it is finished or nobody wants it to go on here.

        Raises:
            EventstoreError: a process has ended, or Kafka has not answered for PATIENCE_SECONDS.
        """
        status, heard = Status.RUNNING, monotonic()
        while status is Status.RUNNING and not self._stop:
            try:
                status, heard = self._look(offsets, replays), monotonic()
            except TransientKafkaError:  # the processes wait for the brokers, too
                if monotonic() - heard > PATIENCE_SECONDS:
                    raise
            self._refuse_dead()
            sleep(LOOK_SECONDS)
        return status

    def _look(self, offsets: Standing, replays: Replays) -> Status:
        reached = progress(self.plan, offsets.committed(self.plan.group))
        self.on_progress(reached)
        if reached.finished:
            return Status.DONE
        if monotonic() < self._next_status:
            return Status.RUNNING
        self._next_status = monotonic() + STATUS_SECONDS
        return replays.get(self.plan.id).status

    def _refuse_dead(self) -> None:
        for index, child in enumerate(self._children):
            if (code := child.poll()) is not None and not self._stop:
                raise EventstoreError(
                    f"replay {self.plan.id}: expected process {index} to go on, it ended with exit code {code} "
                    f"(its last words are above); mend that, then `eventstore replay resume {self.plan.id}`"
                )

    def _end(self) -> list[Account]:
        """Have all processes finish what they have begun and commit; gives the accounts of those that could."""
        for child in self._children:
            if child.poll() is None:
                child.terminate()
        deadline = monotonic() + self.settings.worker.drain_timeout + GRACE_SECONDS
        accounts = []
        for child in self._children:
            try:
                told, _ = child.communicate(timeout=max(0.0, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                told, _ = child.communicate()
            if told.strip():
                accounts.append(msgspec.json.decode(told, type=Account))
        return accounts


def ended(replays: Replays, reached: Progress, plan: Plan, status: Status) -> Status:
    """What a run has come to, by what is on record now; notes it if the replay is done."""
    if not reached.finished:
        return status
    if replays.get(plan.id).status is Status.CANCELLED:  # before anybody here had heard of it
        return Status.CANCELLED
    return replays.become(plan.id, Status.DONE, now_ms()).status


class Signals:
    """Has SIGTERM and SIGINT heard for the length of a block."""

    def __init__(self, heard: Callable[[], None]) -> None:
        self._heard = heard
        self._before: dict[int, object] = {}

    def __enter__(self) -> None:
        def handle(_number: int, _frame: FrameType | None) -> None:
            self._heard()

        self._before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]  # as it was given
