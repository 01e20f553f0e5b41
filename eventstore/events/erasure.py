"""Users whose past was erased: nothing of theirs up to a moment is stored again, wherever it comes from.

The delete in the store is not enough. Kafka still holds the events, and whatever brings them back (a replay, a dead
letter, a divert topic, a late producer) would write them again; the tombstone shadows those only as long as it lives.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

NEVER: Final = -1
"""The floor of a user who was not erased: every event time lies above it."""


class Erasure(msgspec.Struct, frozen=True, order=True):
    """One user's events at or before a moment are gone and stay so; what is newer is kept."""

    tenant: str
    uid: str
    to_micros: int
    """The last event time erased, in microseconds since the epoch."""
    recorded_ms: int
    """When it was asked for, in milliseconds since the epoch."""

    @property
    def key(self) -> bytes:
        """The user's Kafka key."""
        return erasure_key(self.tenant, self.uid)


def erasure_key(tenant: str, uid: str) -> bytes:
    return f"{tenant}:{uid}".encode()


class Erasures:
    """What is known of erasures, by the users' Kafka keys (`tenant:uid`). It grows while workers run."""

    def __init__(self, floors: Mapping[bytes, int] | None = None) -> None:
        self._floors = dict(floors or {})
        self._subscribers: list[Callable[[bytes], None]] = []

    def floor(self, key: bytes | None) -> int:
        """The last event time erased, in microseconds since the epoch; NEVER for everybody else."""
        return NEVER if key is None else self._floors.get(key, NEVER)

    def hear(self, key: bytes, to_micros: int | None) -> None:
        """An erasure was recorded, or (None) forgotten. It is never shortened: two may be recorded in either order."""
        if to_micros is None:
            self._floors.pop(key, None)
        else:
            self._floors[key] = max(to_micros, self.floor(key))
        for told in self._subscribers:
            told(key)

    def subscribe(self, on_change: Callable[[bytes], None]) -> None:
        """Call back with the key of every user whose floor changes from now on."""
        self._subscribers.append(on_change)
