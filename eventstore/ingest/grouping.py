"""Batches cut to size: one batch is one mutation to the store, whatever its number of rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from eventstore.events.cells import Batch


@dataclass(frozen=True, slots=True)
class BatchLimit:
    rows: int = 50
    size_bytes: int = 48 * 1024
    """Of the rows' cells; one row may exceed it and then travels alone."""


def cut(batches: Iterable[Batch], limit: BatchLimit) -> Iterator[Batch]:
    """The same rows in the same order, in batches within the limit."""
    for batch in batches:
        if len(batch) == 1 or (len(batch) <= limit.rows and sum(map(len, batch)) <= limit.size_bytes):
            yield batch
        else:
            yield from _pieces(batch, limit)


def _pieces(rows: Batch, limit: BatchLimit) -> Iterator[Batch]:
    piece: Batch = []
    size = 0
    for row in rows:
        if piece and (len(piece) == limit.rows or size + len(row) > limit.size_bytes):
            yield piece
            piece, size = [], 0
        piece.append(row)
        size += len(row)
    yield piece
