"""The rows of the table `latest`: a user's newest event of each name that the tenant lists.

They are made of the cells of the events' own rows, after these have been grouped: a group of a user's events comes to at
most one row a name, and the events of other tenants are not looked at.
"""

from collections.abc import Mapping
from struct import Struct
from typing import Final

from eventstore.events.cells import FRESH, FRESH_LATEST, INT, LATE_LATEST, Batch, Cells, key_end, text
from eventstore.tenancy import Registry

BID_BYTES: Final = 4 + 4
NAME_AT: Final = 4 + 8 + 4 + 16
"""Where the cell of an event's name begins, counted from the end of its partition key: behind ts and eid."""
FRESH_END_BYTES: Final = 4 + 8
"""Of the write timestamp's cell, a fresh row's last."""
LATE_END_BYTES: Final = FRESH_END_BYTES + 4 + 4
"""And of the time to live's."""
_length = Struct(">i").unpack_from


def names_by_tenant(registry: Registry) -> Mapping[str, tuple[bytes, ...]]:
    """The cells of the names, of those tenants that list any."""
    return {each.name: tuple(map(text, each.latest)) for each in registry.tenants.values() if each.latest}


def newest(batch: Batch, names: tuple[bytes, ...]) -> Batch:
    """Of a partition's events the newest of each of these names, as rows of the table `latest`.

    Of equally new ones any: so does the store with those that come apart.
    """
    start = key_end(batch[0])
    at = start + NAME_AT
    found: dict[bytes, tuple[bytes, Cells]] = {}
    for cells in batch:
        if cells.startswith(names, at):  # their lengths come first: whoever starts with a name has it
            (length,) = _length(cells, at)
            name = cells[at + 4 : at + 4 + length]
            written = cells[-8:] if cells[:2] == FRESH else cells[-16:-8]
            if name not in found or found[name][0] < written:
                found[name] = written, cells
    return [latest_row(cells, start) for _, cells in found.values()]


def latest_row(cells: Cells, start: int) -> Cells:
    """An event's row as one of the table `latest`: what lies between bid and write timestamp becomes one cell, as it is.

    `start` is where its partition key ends.
    """
    at = start + NAME_AT
    (length,) = _length(cells, at)
    head, end = (FRESH_LATEST, FRESH_END_BYTES) if cells[:2] == FRESH else (LATE_LATEST, LATE_END_BYTES)
    item = INT(len(cells) - end - start)
    return b"".join((head, cells[2 : start - BID_BYTES], cells[at : at + 4 + length], item, cells[start:]))
