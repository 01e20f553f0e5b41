"""One call of `write` and what became of its batches."""

import asyncio
from dataclasses import dataclass, field

from eventstore.errors import StoreError
from eventstore.events.cells import Batch
from eventstore.store.writer import Failure


@dataclass(slots=True)
class Ticket:
    """How many batches of one call are still on their way; the call ends when none is."""

    left: int
    started: float
    """Event loop's clock."""
    done: asyncio.Future[None]
    failures: list[Failure] = field(default_factory=list)

    def fail(self, batch: Batch, error: StoreError) -> None:
        """One batch less is on its way: it failed."""
        self.failures.append(Failure(batch, error))
        self.left -= 1
        if not self.left:
            self.end()

    def end(self) -> None:
        """None is left."""
        if not self.done.done():  # done: the caller was cancelled
            self.done.set_result(None)

    def crash(self, bug: Exception) -> None:
        """End the call with what nobody expected: better no answer about its batches than a wrong one."""
        if not self.done.done():
            self.done.set_exception(bug)
