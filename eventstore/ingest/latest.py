"""The rows of the table `latest`: a user's newest event of each name that the tenant lists.

They are made of the cells of the events' own rows, after these have been grouped: a user's events of one chunk come to at
most one row a name, and the events of other tenants are not looked at.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

from eventstore.events.cells import FRESH, FRESH_LATEST, INT, LATE_LATEST, Batch, Cells, key_end, write_time
from eventstore.tenancy import Registry

NAME_AT: Final = 4 + 8 + 4 + 16
"""Where an event's name begins, counted from the end of its partition key: behind ts and eid."""
BID_BYTES: Final = 4 + 4
FRESH_END: Final = 4 + 8
"""Bytes of the write timestamp."""
LATE_END: Final = FRESH_END + 4 + 4
"""And of the time to live."""
_length = Struct(">i").unpack_from


@dataclass(slots=True)
class Users:
    """What a chunk has of users whose newest events are kept at hand."""

    _found: dict[bytes, tuple[Collection[bytes], list[Batch]]] = field(default_factory=dict)
    """By Kafka key: names of events, and the user's rows, a batch for each bucket."""

    def add(self, key: bytes, batch: Batch, names: Collection[bytes]) -> None:
        self._found.setdefault(key, (names, []))[1].append(batch)

    def rows(self) -> Iterator[Batch]:
        """Rows of the table `latest`, a batch for each user who has any."""
        for names, batches in self._found.values():
            if rows := newest(batches, names):
                yield rows


def names_by_tenant(registry: Registry) -> Mapping[str, frozenset[bytes]]:
    """Of those tenants that list any."""
    return {each.name: frozenset(map(str.encode, each.latest)) for each in registry.tenants.values() if each.latest}


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
    head, end = (FRESH_LATEST, FRESH_END) if cells[:2] == FRESH else (LATE_LATEST, LATE_END)
    item = cells[start:-end]
    key = cells[2 : start - BID_BYTES]
    return b"".join((head, key, INT(len(name)), name, INT(len(item)), item, cells[-end:]))
