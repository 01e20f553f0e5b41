"""What reading asks of a store. `eventstore.store.reader` keeps it over CQL."""

from collections.abc import Sequence
from typing import Protocol

from eventstore.events.stored import Partition, SeenPost, Slice, StoredEvent
from eventstore.tenancy import Cluster


class TimelineStore(Protocol):
    """One cluster's events, and the posts that users have seen.

    All raise `TransientStoreError` (overloaded, timed out, gone) or `PermanentStoreError` (schema or access).
    """

    async def read(self, part: Slice, event: str | None, limit: int) -> list[StoredEvent]:
        """The newest `limit` rows of the slice, newest first; fewer only if it has no more."""
        ...

    async def count(self, part: Slice, event: str | None) -> int:
        """The number of rows of the slice."""
        ...

    async def latest(self, tenant: str, uid: str, names: Sequence[str]) -> list[StoredEvent]:
        """The user's newest event of each of the names that are kept at hand, in any order."""
        ...

    async def seen(self, partition: Partition, posts: Sequence[str]) -> list[SeenPost]:
        """Those of the posts that are there, in any order."""
        ...

    async def posts(self, partition: Partition, after: str, limit: int) -> list[SeenPost]:
        """The first `limit` posts whose ids come after `after`, in the order of their UTF-8; fewer only if it has no more."""
        ...


class TimelineStores(Protocol):
    """Every cluster's store, connected when first asked for: a dead cluster troubles its own tenants only."""

    async def of(self, cluster: Cluster) -> TimelineStore: ...
