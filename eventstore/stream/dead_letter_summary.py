"""Dead letters counted by reason, tenant and source topic."""

from dataclasses import dataclass, field
from typing import Final

from eventstore.stream.dead_letter import DeadLetter

MAX_GROUPS: Final = 1_000
"""Letters of further reasons, tenants and topics are counted together: tenants are whatever producers write."""
OTHERS: Final = ("other", "", "")


@dataclass(slots=True)
class Group:
    """Dead letters of one reason, tenant and source topic."""

    waiting: int = 0
    replayed: int = 0
    first: str = ""
    last: str = ""
    latest: str = ""
    """The place of one to look at."""

    def add(self, letter: DeadLetter, *, replayed: bool) -> None:
        self.replayed += replayed
        self.waiting += not replayed
        when = letter.time.isoformat(timespec="seconds").replace("+00:00", "Z")
        self.first = min(self.first or when, when)
        if when >= self.last:
            self.last, self.latest = when, f"{letter.partition}/{letter.offset}"


@dataclass(slots=True)
class Summary:
    """All groups, by (reason, tenant, topic)."""

    groups: dict[tuple[str, str, str], Group] = field(default_factory=dict)
    strangers: int = 0

    def add(self, letter: DeadLetter, *, replayed: bool) -> None:
        key = (letter.reason, letter.tenant, letter.source.topic)
        if key not in self.groups and len(self.groups) >= MAX_GROUPS:
            key = OTHERS
        self.groups.setdefault(key, Group()).add(letter, replayed=replayed)
