"""How quickly work is done, and how long the rest will take. Pure; `now` is passed in."""

from collections import deque
from dataclasses import dataclass, field

WINDOW_SECONDS = 30.0
"""Long enough to even out commits, short enough to notice a change."""


@dataclass(slots=True)
class Speed:
    """Records a second over the last half minute."""

    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def observe(self, done: int, now: float) -> None:
        """`done` is the sum so far."""
        self._seen.append((now, done))
        while now - self._seen[0][0] > WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def per_second(self) -> float:
        (start, before), (end, now) = (self._seen[0], self._seen[-1]) if self._seen else ((0.0, 0), (0.0, 0))
        return (now - before) / (end - start) if end > start else 0.0

    def seconds_for(self, records: int) -> float | None:
        """None: at this speed, never."""
        return records / self.per_second if self.per_second > 0 else None if records else 0.0
