"""What reading asks of a store. `eventstore.store.reader` keeps it over CQL."""

from typing import Protocol

from eventstore.events.stored import Slice, StoredEvent
from eventstore.tenancy import Cluster


class TimelineStore(Protocol):
    """One cluster's events.

    Both raise `TransientStoreError` (overloaded, timed out, gone) or `PermanentStoreError` (schema or access).
    """

    async def read(self, part: Slice, event: str | None, limit: int) -> list[StoredEvent]:
        """The newest `limit` rows of the slice, newest first; fewer only if it has no more."""
        ...

    async def count(self, part: Slice, event: str | None) -> int:
        """The number of rows of the slice."""
        ...


class TimelineStores(Protocol):
    """Every cluster's store, connected when first asked for: a dead cluster troubles its own tenants only."""

    async def of(self, cluster: Cluster) -> TimelineStore: ...
