"""Events and seen posts as the store holds them, and where in a user's past they stand."""

from typing import Final, NamedTuple, Self
from uuid import UUID

import msgspec

LOWEST_EID: Final = UUID(int=0)
"""No `eid` sorts before it: both servers order UUIDs by version first, then by time or bytes."""


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """One row. `properties` and `context` are the producer's own JSON, never parsed, spliced into what we encode."""

    timestamp: int
    """Event time in milliseconds since the epoch."""
    eid: UUID
    event: str
    properties: msgspec.Raw
    context: msgspec.Raw

    @property
    def position(self) -> "Position":
        return Position(self.timestamp, self.eid)


class Position(NamedTuple):
    """A place in the order of one user's events: by event time, then by `eid` as the server orders UUIDs."""

    timestamp_ms: int
    eid: UUID = LOWEST_EID


class Slice(NamedTuple):
    """A part of one partition: its events from `since_ms` (inclusive) up to `before` (exclusive)."""

    tenant: str
    uid: str
    bid: int
    since_ms: int
    before: Position

    def older_than(self, position: Position) -> Self:
        """What is left of it once everything down to `position` has been read."""
        return self._replace(before=position)


class Partition(NamedTuple):
    """A whole partition, by its key."""

    uid: str
    tenant: str
    bid: int


class SeenPost(msgspec.Struct, frozen=True, gc=False):
    """A post and when the user saw it, in milliseconds since the epoch; in one bucket, or in all of them."""

    post: str
    first_ms: int
    last_ms: int

    def joined(self, other: "SeenPost") -> "SeenPost":
        """What two buckets tell of the same post."""
        return SeenPost(self.post, min(self.first_ms, other.first_ms), max(self.last_ms, other.last_ms))
