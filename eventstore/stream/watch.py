"""One reader of a single key's records as they come, and why he may be sent away."""

import asyncio
from collections import deque
from contextlib import suppress
from enum import Enum
from typing import Final

from eventstore.stream.chunk import Record
from eventstore.stream.offsets import Held

BUFFER_BYTES: Final = 2**20
"""What may wait for one reader when more comes; that is at most what the client holds of a partition (`follower.QUEUE_KIBIBYTES`)."""
RECORD_BYTES: Final = 512
"""What a record takes beside its value, about."""


class Ending(Enum):
    """Why a watch is over. Whoever watches may come again with his position, and goes on there."""

    SLOW = "slow"
    """Too much waited for its reader."""
    STOPPED = "stopped"
    MOVED = "moved"
    """The topic has got more partitions: the key's records may be on another from now on."""
    FAILED = "failed"
    """Kafka has refused; the log says what."""


class WatchEnded(Exception):  # noqa: N818 — mostly no error
    def __init__(self, why: Ending) -> None:
        super().__init__(why.value)
        self.why = why


class Watch:
    """One reader's records, in the order of the partition, from `start` on without a gap. Lives on the event loop."""

    def __init__(self, key: bytes, partition: int) -> None:
        self.key = key
        self.partition = partition
        self.start = 0
        """The first offset that this watch may give."""
        self.held = Held(0, 0)
        """What the partition held when the watch began."""
        self._passed = 0
        self._records: deque[Record] = deque()
        self._bytes = 0
        self._stirred = asyncio.Event()
        self._waiting = False
        """Whether its reader has taken everything and waits for more, or has not had his turn since it came."""
        self._ending: Ending | None = None

    @property
    def position(self) -> int:
        """The offset up to before which this reader has been given everything, once `take` has given nothing more."""
        return max(self.start, self._passed)

    async def take(self, seconds: float) -> list[Record]:
        """What has come; waits so long for the first, then gives none.

        Raises:
            WatchEnded: nothing more will come.
        """
        if not self._records and self._ending is None:
            self._stirred.clear()
            self._waiting = True
            try:
                # what comes in the moment of giving up is given: the position is behind it already
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._stirred.wait()
            finally:
                self._waiting = False
        if self._ending is not None:
            raise WatchEnded(self._ending)
        found = list(self._records)
        self._records.clear()
        self._bytes = 0
        return found

    def skip_to(self, offset: int) -> None:
        """Give nothing from before this offset: its reader has had it."""
        self.start = max(self.start, offset)
        kept = [record for record in self._records if (record.offset() or 0) >= offset]
        self._records.clear()
        self._bytes = 0
        for record in kept:
            self.hear(record)

    def expect(self) -> None:
        """More is about to come: who has not taken what came before is too slow. It is no fault of his however much comes at once,
        nor that a busy loop has not given him his turn.
        """
        if self._bytes > BUFFER_BYTES and not self._waiting:
            self.end(Ending.SLOW)

    def hear(self, record: Record) -> None:
        if self._ending is not None or (record.offset() or 0) < self.start:
            return
        self._records.append(record)
        self._bytes += len(record.value() or b"") + RECORD_BYTES
        self.passed(record.offset() + 1)
        self._stirred.set()

    def passed(self, offset: int) -> None:
        self._passed = max(self._passed, offset)

    def end(self, why: Ending) -> None:
        if self._ending is None:
            self._ending = why
            self._records.clear()
            self._stirred.set()
