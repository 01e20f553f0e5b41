"""What the ingest path asks of a cluster. Implemented over the driver in `driver_writer`."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from eventstore.errors import StoreError
from eventstore.events.row import Batch


class Failure(NamedTuple):
    batch: Batch
    error: StoreError


class EventWriter(Protocol):
    """Writes batches to one cluster; each is acknowledged by a quorum, or comes back with its error."""

    @property
    def cluster(self) -> str: ...

    async def write(self, batches: Sequence[Batch]) -> Sequence[Failure]:
        """Try each batch once; waits while as many batches as allowed are on their way."""
        ...

    async def close(self) -> None: ...
