"""How many batches may be on their way over one lane. Pure: the time is passed in."""

from dataclasses import dataclass
from typing import Final

FIRST: Final = 64.0
LEAST: Final = 4.0


@dataclass(slots=True)
class Window:
    """Grows by one a round trip while batches wait for it, and halves at most once a round trip when the node is overloaded
    or late (additive increase, multiplicative decrease), so that it settles where the node's queue is short.
    """

    most: float
    size: float = 0.0
    _shrunk_at: float = 0.0

    def __post_init__(self) -> None:
        self.size = min(FIRST, self.most)

    def grow(self, acknowledged: int) -> None:
        self.size = min(self.most, self.size + acknowledged / self.size)

    def shrink(self, sent_at: float, now: float) -> None:
        """A batch sent at `sent_at` failed; those sent before the window last shrank have had their say."""
        if sent_at >= self._shrunk_at:
            self.size = max(min(LEAST, self.most), self.size / 2)
            self._shrunk_at = now
