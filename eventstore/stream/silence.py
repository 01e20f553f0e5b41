"""Whether a group member hears nothing although records come: its client's fetching has died, and nothing else tells.

The client's own watermarks come with what it fetches, so a member that fetches nothing takes them for unchanged: the brokers
are asked. Records that wait without more coming are no proof: transactions leave markers behind that nobody is ever handed.
Pure: `now` is passed in.
"""

from collections.abc import Hashable, Mapping
from typing import Final

from eventstore.stream.assignment import Place

LOOK_SECONDS: Final = 10.0
"""Between two looks at where the logs end, while nothing is taken."""


class Silence:
    def __init__(self) -> None:
        self.since: float | None = None
        """When it was first seen that more has come, with room for it, and none of it was taken; None otherwise."""
        self._moved: Hashable = None
        self._ends: Mapping[Place, int] | None = None
        self._next_look = 0.0

    def broken(self, moved: Hashable, now: float) -> None:
        """It is no silence unless `moved` stays the same: it stands for what was taken and finished so far."""
        if moved != self._moved:
            self._moved, self._ends, self.since = moved, None, None
            self._next_look = now + LOOK_SECONDS

    def look_is_due(self, now: float) -> bool:
        return now >= self._next_look

    def looked(self, ends: Mapping[Place, int] | None, now: float) -> None:
        """Where the logs end; None if the brokers do not tell: then they are silent, not we."""
        self._next_look = now + LOOK_SECONDS
        if ends is None:
            self._ends = self.since = None
        elif self._ends is None:
            self._ends = ends
        elif self.since is None and any(end > self._ends.get(place, end) for place, end in ends.items()):
            self.since = now
