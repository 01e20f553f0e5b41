"""What the ingest path asks of a cluster. Implemented twice: by `driver_writer` and by `lane.writer`."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from eventstore.errors import StoreError
from eventstore.events.cells import Batch


class Failure(NamedTuple):
    batch: Batch
    error: StoreError


class EventWriter(Protocol):
    """Writes batches to one cluster; each is acknowledged by a quorum, or comes back with its error."""

    @property
    def cluster(self) -> str: ...

    @property
    def acknowledged(self) -> int:
        """Batches so far; it grows while a `write` is under way. A connection that is lost may take its share with it."""
        ...

    async def write(self, batches: Sequence[Batch]) -> Sequence[Failure]:
        """Try each batch once; those that failed come back, each once, with why.

        Always returns: a batch that cannot be sent, or is not answered, for the request's time-out is a failure too.
        A failed batch may have been stored all the same; writing it again changes nothing then.
        """
        ...

    async def close(self) -> None: ...
