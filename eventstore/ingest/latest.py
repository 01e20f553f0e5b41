"""The rows of the table `latest`: each user's newest event of a name, made of the cells of the event's own row."""

from collections.abc import Collection, Iterable
from struct import Struct
from typing import Final

from eventstore.events.cells import FRESH, FRESH_LATEST, INT, LATE_LATEST, Batch, Cells, key_end, write_time

NAME_AT: Final = 4 + 8 + 4 + 16
"""Where an event's name begins, counted from the end of its partition key: behind ts and eid."""
BID_BYTES: Final = 4 + 4
_length = Struct(">i").unpack_from


def newest(batches: Iterable[Batch], names: Collection[bytes]) -> Batch:
    """Of one user's events the newest of each of these names, as rows of the table `latest`.

    Of equally new ones any: so does the store with those that come apart.
    """
    found: dict[bytes, Cells] = {}
    for batch in batches:
        start = key_end(batch[0])
        for cells in batch:
            name = event_name(cells, start)
            if name in names and (name not in found or write_time(found[name]) < write_time(cells)):
                found[name] = cells
    return [latest_row(cells) for cells in found.values()]


def event_name(cells: Cells, start: int) -> bytes:
    """The name of the event; `start` is where its partition key ends."""
    at = start + NAME_AT
    (length,) = _length(cells, at)
    return cells[at + 4 : at + 4 + length]


def latest_row(cells: Cells) -> Cells:
    """An event's row as one of the table `latest`: what lies between bid and write timestamp becomes one cell, as it is."""
    start = key_end(cells)
    name = event_name(cells, start)
    head, end = (FRESH_LATEST, len(cells) - 12) if cells[:2] == FRESH else (LATE_LATEST, len(cells) - 20)
    item = cells[start:end]
    return b"".join((head, cells[2 : start - BID_BYTES], INT(len(name)), name, INT(len(item)), item, cells[end:]))
