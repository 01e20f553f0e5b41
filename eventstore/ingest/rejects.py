"""Too many rejects in a short time mean that a producer, or the registry, broke: stop before a topic drains into the dead
letters. Pure; `now` is passed in.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from eventstore.errors import RefusedError
from eventstore.events import Reason

SLOTS: Final = 30
"""The window slides in steps of its length divided by this."""
SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class RejectLimit:
    share: float = 0.5
    """Of the records of a window; more than this is suspicious. 1: nothing ever is."""
    records: int = 1_000
    """The fewest records of a window that say anything."""
    seconds: float = 60.0
    """The window's length."""


@dataclass(slots=True)
class Slot:
    start: float
    records: int = 0
    rejects: Counter[Reason] | None = None
    """None while there are none, as nearly always."""


class RejectWindow:
    """What one worker rejected lately."""

    def __init__(self, limit: RejectLimit) -> None:
        self._limit = limit
        self._slots: deque[Slot] = deque()

    def anew(self) -> "RejectWindow":
        """An empty one of the same limit."""
        return RejectWindow(self._limit)

    def add(self, records: int, rejects: Iterable[Reason], now: float) -> None:
        """So many more records came, these of them rejected.

        Raises:
            RefusedError: that is more than the limit allows: none of these must reach the dead letters.
        """
        slot = self._slot(now)
        slot.records += records
        if reasons := Counter(rejects):
            slot.rejects = reasons if slot.rejects is None else slot.rejects + reasons
            self._check()

    def _slot(self, now: float) -> Slot:
        length = self._limit.seconds / SLOTS
        if not self._slots or now >= self._slots[-1].start + length:
            self._slots.append(Slot(now))
        while self._slots[0].start + length <= now - self._limit.seconds:
            self._slots.popleft()
        return self._slots[-1]

    def _check(self) -> None:
        limit = self._limit
        records = sum(slot.records for slot in self._slots)
        reasons: Counter[Reason] = sum((slot.rejects for slot in self._slots if slot.rejects), Counter())
        rejected = reasons.total()
        if records >= limit.records and rejected > limit.share * records:
            told = ", ".join(f"{reason.value} {count:,}" for reason, count in reasons.most_common(SHOWN))
            raise RefusedError(
                f"rejects: expected at most {limit.share:.0%} of the records of {limit.seconds:g} s, got {rejected:,} of "
                f"{records:,} ({told}); mend the producer or the registry, then start again; to let them go to the dead "
                "letters nevertheless, set EVENTSTORE_WORKER__HALT_REJECT_SHARE=1"
            )
