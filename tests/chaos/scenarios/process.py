"""Workers that are killed, stopped, frozen, and that come and go."""

import os
import signal

from tests.chaos.field import Field

KILLS = 5


def sigkill_in_mid_batch(field: Field) -> None:
    """Two workers; five times the older one dies with records in its hands."""
    field.start_workers(2)
    field.publish()
    for _ in field.times(KILLS):
        field.wait_until_busy()
        field.kill_worker()
        field.check_prefix()
        field.start_workers(1)
    field.fault(f"worker SIGKILL x{field.kills}")
    field.healed()


def rolling_sigterm(field: Field) -> None:
    """Three workers are replaced one after the other, as a deployment does."""
    field.start_workers(3)
    field.publish()
    for old in tuple(field.workers):
        field.wait_until_busy()
        field.stop_worker(old)
        field.start_workers(1)
    field.fault("rolling SIGTERM x3")
    field.healed()


def zombie(field: Field) -> None:
    """A worker is frozen until its partitions are another's, and comes back with chunks in its hands."""
    field.start_workers(2)
    field.publish()
    for victim in tuple(field.workers):
        field.wait_until_busy()
        before = field.assignments()
        os.kill(victim.pid, signal.SIGSTOP)
        field.wait(lambda: field.assignments() > before, "another to take over")  # noqa: B023 — called at once
        field.wait_until_busy()
        os.kill(victim.pid, signal.SIGCONT)
        field.check_prefix()
    field.fault("SIGSTOP past the session time-out x2")
    field.healed()


def all_killed(field: Field) -> None:
    """Nobody is left; what was acknowledged waits in Kafka; two new workers begin where commits say."""
    field.start_workers(2)
    field.publish()
    for _ in field.times(2):
        field.wait_until_busy()
        for worker in tuple(field.workers):
            field.kill_worker(worker)
        field.check_prefix()
        field.start_workers(2)
    field.fault("all workers SIGKILL x2")
    field.healed()


def scaling(field: Field) -> None:
    """1 -> 2 -> 4 -> 1 workers under load."""
    field.start_workers(1)
    field.publish()
    field.wait_until_busy()
    field.start_workers(1)
    field.wait_until_busy()
    field.start_workers(2)
    field.wait_until_busy()
    for worker in tuple(field.workers)[:3]:
        field.stop_worker(worker)
    field.wait_until_busy()
    field.fault("1 -> 2 -> 4 -> 1 workers")
    field.healed()
