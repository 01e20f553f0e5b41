"""How many batches may be on their way over one lane. Pure."""

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
    _shrunk_at: int = -1

    def __post_init__(self) -> None:
        self.size = min(FIRST, self.most)

    def grow(self, acknowledged: int) -> None:
        self.size = min(self.most, self.size + acknowledged / self.size)

    def shrink(self, sent: int, turn: int) -> None:
        """A batch sent in turn `sent` failed; it is turn `turn` now. Those sent before it last shrank have had their say.

        Turns, not times: an event loop's clock may stand still for a millisecond.
        """
        if sent > self._shrunk_at:
            self.size = max(min(LEAST, self.most), self.size / 2)
            self._shrunk_at = turn
