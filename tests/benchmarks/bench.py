"""What scenarios share: the arena, how much to do, and where results go as they come."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.benchmarks import results
from tests.benchmarks.arena import Arena
from tests.benchmarks.results import Point, Result


@dataclass(frozen=True, slots=True)
class Scale:
    """How much work a run does."""

    events: int = 200_000
    """Of the main load; other loads are parts or multiples of it."""
    rounds: int = 3
    """Of what is compared: the median counts, and contestants take turns."""
    seconds: float = 15.0
    """How long a paced load lasts."""

    def part(self, share: float) -> int:
        return max(500, int(self.events * share))


FULL = Scale()
QUICK = Scale(events=4_000, rounds=1, seconds=2.0)


@dataclass(slots=True)
class Bench:
    arena: Arena
    scale: Scale
    show: Callable[[Result], None] = lambda _: None
    now_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    results: list[Result] = field(default_factory=list)

    def record(self, scenario: str, name: str, figures: dict[str, float], curve: list[Point] | None = None) -> None:
        result = Result(scenario, name, figures, curve or [])
        self.results.append(result)
        self.show(result)

    def figure(self, scenario: str, name: str, figure: str) -> float | None:
        """A case's median of what has been measured so far."""
        found = (r for r in results.medians(self.results) if (r.scenario, r.name) == (scenario, name))
        return next((result.figures.get(figure) for result in found), None)
