"""Writing one cluster's batches until they are stored."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from eventstore import metrics
from eventstore.errors import TransientStoreError
from eventstore.events.cells import Batch
from eventstore.store.writer import EventWriter

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    base_seconds: float = 0.05
    most_seconds: float = 2.0
    deadline_seconds: float = 60.0
    """Failing for so long without a single batch stored ends the attempt: bounded, like everything else."""

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait before attempt `attempt` (from 1): exponential with full jitter; `chance` is in [0, 1)."""
        # 2**30 is beyond any sensible cap, and keeps the float finite
        return chance * min(self.most_seconds, self.base_seconds * 2.0 ** min(attempt - 1, 30))


@dataclass(slots=True, eq=False)
class Unstored:
    """What is being written: those batches that no attempt has had acknowledged so far."""

    batches: Sequence[Batch]


async def write_until_stored(
    writer: EventWriter,
    unstored: Unstored,
    policy: RetryPolicy,
    monotonic: Callable[[], float],
    *,
    chance: Callable[[], float] = random.random,
    refused: Callable[[str], None] = lambda _: None,
    may_end: Callable[[], bool] = lambda: True,
) -> None:
    """Returns when every batch is acknowledged; `refused` hears why whenever not one of an attempt was.

    `unstored` tells at any moment what is left to write, after an error or a cancellation as well. `may_end` says, once the
    policy's time is up, whether that counts.

    Raises:
        PermanentStoreError: a batch that no retry can help; others of the call may be stored.
        TransientStoreError: batches still failing when the policy's time was up without progress.
    """
    metrics.BATCHES.labels(writer.cluster).inc(len(unstored.batches))
    deadline = monotonic() + policy.deadline_seconds
    attempt = 0
    while failures := await writer.write(unstored.batches):
        for failure in failures:
            if not isinstance(failure.error, TransientStoreError):
                raise failure.error
        stored = len(unstored.batches) - len(failures)
        unstored.batches = [failure.batch for failure in failures]
        if stored:  # slow, but alive
            deadline = monotonic() + policy.deadline_seconds
        else:
            refused(str(failures[0].error))
            if monotonic() >= deadline and may_end():
                raise failures[0].error
        attempt += 1
        metrics.RETRIED.labels(writer.cluster).inc(len(failures))
        if attempt == 1 or attempt & (attempt - 1) == 0:  # 1, 2, 4, 8 ...: loud, not a flood
            log.warning("writing again", cluster=writer.cluster, batches=len(failures), attempt=attempt,
                        error=str(failures[0].error))  # fmt: skip
        await asyncio.sleep(policy.delay(attempt, chance()))
