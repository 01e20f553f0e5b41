"""Runs a replay to its end: starts its processes, follows its progress in Kafka, hears what operators want of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, sleep
from types import FrameType
from typing import NamedTuple

import msgspec

from eventstore.config import Settings
from eventstore.errors import EventstoreError
from eventstore.registry import now_ms
from eventstore.replay.plan import Progress, progress
from eventstore.replay.run import Account
from eventstore.replay.state import Replay, Replays, Status
from eventstore.stream.offsets import TopicOffsets
from workers.supervisor import GRACE_SECONDS, SUPERVISOR_PID

LOOK_SECONDS = 0.5
"""Between two looks at the progress."""
STATUS_SECONDS = 2.0
"""Between two looks at what operators want."""


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
    replay: Replay
    workers: int
    on_progress: Callable[[Progress], None]
    _children: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    _stop: bool = False

    def run(self) -> Outcome:
        """Returns when the replay is done, paused, cancelled, or a signal stops it here.

        Raises:
            EventstoreError: a process failed (it has said why), or Kafka cannot be used. What was stored is committed;
                resuming goes on from there.
        """
        plan = self.replay.plan
        offsets = TopicOffsets(self.settings.kafka, plan.topic)
        replays = Replays(self.settings.kafka, self.settings.topics.replays)
        started = monotonic()
        accounts: list[Account] = []
        with _Signals(self._asked_to_stop):
            # the state first: what it has recorded can be resumed, whatever happens next
            self._put(replays, Status.RUNNING)
            if missing := plan.start_offsets(offsets.committed(plan.group)):
                offsets.move(plan.group, missing)
            try:
                self._start()
                status = self._follow(offsets, replays)
            finally:
                accounts += self._end()
        reached = progress(plan, offsets.committed(plan.group))
        self.on_progress(reached)
        if reached.finished:
            status = Status.DONE
            self._put(replays, status)
        return Outcome(status, reached, sum(accounts, Account()), monotonic() - started)

    def _put(self, replays: Replays, status: Status) -> None:
        self.replay = self.replay.become(status, now_ms())
        replays.put(self.replay)

    def _asked_to_stop(self) -> None:
        self._stop = True

    def _start(self) -> None:
        environment = {**os.environ, SUPERVISOR_PID: str(os.getpid())}
        for index in range(self.workers):
            command = [
                sys.executable, "-m", "eventstore", "replay", "work", self.replay.plan.id,
                "--index", str(index), "--of", str(self.workers),
            ]  # fmt: skip
            self._children.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE))

    def _follow(self, offsets: TopicOffsets, replays: Replays) -> Status:
        """Until it is finished or nobody wants it to go on here."""
        plan = self.replay.plan
        next_status = monotonic() + STATUS_SECONDS
        while not self._stop:
            reached = progress(plan, offsets.committed(plan.group))
            self.on_progress(reached)
            if reached.finished:
                return Status.DONE
            if monotonic() >= next_status:
                wanted = replays.get(plan.id).status
                if wanted is not Status.RUNNING:
                    return wanted
                next_status = monotonic() + STATUS_SECONDS
            self._refuse_dead()
            sleep(LOOK_SECONDS)
        return Status.RUNNING

    def _refuse_dead(self) -> None:
        for index, child in enumerate(self._children):
            if (code := child.poll()) is not None and not self._stop:
                raise EventstoreError(
                    f"replay {self.replay.plan.id}: expected process {index} to go on, it ended with exit code {code} "
                    f"(its last words are above); mend that, then `eventstore replay resume {self.replay.plan.id}`"
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


class _Signals:
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
