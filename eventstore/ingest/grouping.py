"""Rows into single-partition batches: one batch is one mutation to the store, whatever its number of rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from eventstore.events.row import Batch, Row

ROW_OVERHEAD_BYTES = 120
"""What a row adds beside its texts: ids, times, lengths, the statement's id."""


@dataclass(frozen=True, slots=True)
class BatchLimit:
    rows: int = 50
    size_bytes: int = 48 * 1024
    """Of row data; one row may exceed it and then travels alone."""


def group(rows: Iterable[Row], limit: BatchLimit) -> list[Batch]:
    """Batches in which all rows share (uid, tenant, bid), in order of arrival."""
    partitions: dict[tuple[str, str, int], Batch] = {}
    for row in rows:
        key = (row.uid, row.tenant, row.bid)
        if (same := partitions.get(key)) is None:
            partitions[key] = [row]
        else:
            same.append(row)
    return [batch for partition in partitions.values() for batch in _cut(partition, limit)]


def _cut(rows: Batch, limit: BatchLimit) -> Iterator[Batch]:
    if len(rows) == 1:
        yield rows
        return
    batch: Batch = []
    size = 0
    for row in rows:
        row_size = ROW_OVERHEAD_BYTES + len(row.properties) + len(row.context) + len(row.uid) + len(row.event)
        if batch and (len(batch) == limit.rows or size + row_size > limit.size_bytes):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row_size
    yield batch
