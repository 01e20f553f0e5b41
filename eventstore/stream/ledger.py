"""Which offsets of one partition may be committed: the contiguous finished prefix, never past a hole.

One ledger lives as long as one assignment of the partition to this member. A partition that is revoked and assigned
again gets a new ledger, so what finishes late is written into a book that nobody reads any more.
"""

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Entry:
    """Offsets `first` to `last` (inclusive), handed out as one chunk."""

    first: int
    last: int
    finished: bool = False


@dataclass(slots=True)
class Ledger:
    """Entries are opened in offset order and finished in any order.

    `finished_to` is written on the event loop and read by the pump thread; `committed_to` the other way round. Both are
    plain ints that only grow: a stale reading commits a little less, never too much.
    """

    finished_to: int | None = None
    """The next offset to consume if we stopped now; None until the first entry is finished."""
    committed_to: int | None = None
    """The last offset that Kafka acknowledged."""
    _entries: deque[Entry] = field(default_factory=deque)
    _opened_to: int = -1

    def open(self, first: int, last: int) -> Entry:
        """Book a chunk.

        Raises:
            ValueError: the offsets do not continue the ledger. Gaps are fine (compaction, transaction markers).
        """
        if not self._opened_to < first <= last:
            raise ValueError(f"expected offsets above {self._opened_to} in ascending order, got {first} to {last}")
        self._opened_to = last
        entry = Entry(first, last)
        self._entries.append(entry)
        return entry

    def skip_to(self, offset: int) -> None:
        """There is nothing more to read before `offset`: once all chunks are finished, that is what is committed."""
        if self._opened_to < offset - 1:
            self.finish(self.open(self._opened_to + 1, offset - 1))

    def finish(self, entry: Entry) -> None:
        """Every record of the chunk is stored, expired, or in the dead-letter topic."""
        entry.finished = True
        while self._entries and self._entries[0].finished:
            self.finished_to = self._entries.popleft().last + 1

    def committable(self) -> int | None:
        """The offset to commit, or None if Kafka has it already."""
        return self.finished_to if self.finished_to != self.committed_to else None

    def committed(self, offset: int) -> None:
        """Kafka acknowledged a commit; acknowledgements may arrive out of order."""
        self.committed_to = offset if self.committed_to is None else max(offset, self.committed_to)
