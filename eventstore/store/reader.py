"""Reading events over CQL: the `TimelineStore` of `eventstore.timeline`, one cluster each."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Session
from cassandra.query import BoundStatement, PreparedStatement, tuple_factory

from eventstore.config import ReaderSettings
from eventstore.events.stored import LOWEST_EID, Partition, SeenPost, Slice, StoredEvent
from eventstore.store.connections import Connections
from eventstore.store.dialect import ROWS_NAMED
from eventstore.store.failures import mapped
from eventstore.store.request import rows
from eventstore.store.schema import server_of
from eventstore.store.session import close, connect
from eventstore.store.statements import statement
from eventstore.tenancy import Cluster

_EPOCH: Final = datetime(1970, 1, 1)  # naive like the driver's
_MILLISECOND: Final = timedelta(milliseconds=1)


class Range(NamedTuple):
    """A restriction inside one partition: the suffix of its statements' names, and what they bind."""

    name: str
    values: tuple[Any, ...]


def ranges(part: Slice, event: str | None) -> list[Range]:
    """The slice as restrictions to be read one after the other.

    With a filter on the name a tuple must not stand beside ALLOW FILTERING: ScyllaDB before the autumn of 2026 compares
    tuples of descending columns the wrong way round then, and finds nothing (scylladb/scylladb#31631). So the rest of
    the position's own millisecond is a range of its own.
    """
    key = (part.uid, part.tenant, part.bid)
    before = part.before
    if event is None:
        return [Range("slice", (*key, part.since_ms, LOWEST_EID, before.timestamp_ms, before.eid))]
    older = Range("named_slice", (*key, part.since_ms, before.timestamp_ms, event))
    if before.eid == LOWEST_EID:
        return [older]
    return [Range("named_moment", (*key, before.timestamp_ms, before.eid, event)), older]


COUNTED_AT_ONCE: Final = 5_000
"""Rows that the server counts at a stretch: the page size is its unit of work, though a count answers one row."""
RANGES: Final = ("slice", "named_slice", "named_moment")


class EventReader:
    """One cluster's events. Blocks while it prepares its statements; `EventReaders` keeps that off the event loop.

    Raises:
        StoreError: the statements cannot be prepared; mostly the table is not there.
    """

    def __init__(self, cluster: Cluster, session: Session, limits: ReaderSettings) -> None:
        self._cluster = cluster.name
        self._session = session
        self._page_rows = limits.page_rows
        self._profile = session.execution_profile_clone_update(
            EXEC_PROFILE_DEFAULT, row_factory=tuple_factory, request_timeout=limits.request_timeout
        )
        with mapped(self._cluster):
            self._reads = {name: session.prepare(statement(f"read_{name}")) for name in RANGES}
            self._counts = {name: session.prepare(statement(f"count_{name}")) for name in RANGES}
            self._latest = session.prepare(statement("read_latest"))
            self._seen = session.prepare(statement("read_seen_posts"))
            self._posts = session.prepare(statement("read_posts"))
            self._named = min(limits.page_rows, ROWS_NAMED[server_of(session).dialect])

    async def read(self, part: Slice, event: str | None, limit: int) -> list[StoredEvent]:
        """The newest `limit` rows of the slice, newest first; fewer only if it has no more.

        Raises:
            TransientStoreError: overloaded, timed out, gone.
            PermanentStoreError: the schema does not fit, or access is refused.
        """
        found: list[StoredEvent] = []
        for where in ranges(part, event):
            left = limit - len(found)
            if left > 0:
                found += map(
                    _stored,
                    await self._rows(self._reads[where.name], (*where.values, left), min(left, self._page_rows)),
                )
        return found

    async def count(self, part: Slice, event: str | None) -> int:
        """The number of rows of the slice, counted by the server. Raises as `read` does."""
        counts = [
            await self._rows(self._counts[where.name], where.values, COUNTED_AT_ONCE) for where in ranges(part, event)
        ]
        return sum(count for [(count,)] in counts)

    async def latest(self, tenant: str, uid: str, names: Sequence[str]) -> list[StoredEvent]:
        """The newest event of each of the names that the table `latest` has one of; at most 100 are asked for (ScyllaDB's
        default limit). Raises as `read` does.
        """
        return [_stored(item) for (item,) in await self._rows(self._latest, (uid, tenant, names), len(names))]

    async def seen(self, partition: Partition, posts: Sequence[str]) -> list[SeenPost]:
        """Those of the posts that are there, by as few reads as the server allows. Raises as `read` does."""
        parts = [posts[start : start + self._named] for start in range(0, len(posts), self._named)]
        answers = await asyncio.gather(*(self._rows(self._seen, (*partition, part), len(part)) for part in parts))
        return [seen for rows in answers for seen in map(_seen, rows)]

    async def posts(self, partition: Partition, after: str, limit: int) -> list[SeenPost]:
        """The first `limit` posts after `after`, in the order of their UTF-8. Raises as `read` does."""
        rows = await self._rows(self._posts, (*partition, after, limit), min(limit, self._page_rows))
        return [_seen(row) for row in rows]

    async def close(self) -> None:
        await asyncio.to_thread(close, self._session)

    async def _rows(self, prepared: PreparedStatement, values: Sequence[Any], page: int) -> list[Any]:
        with mapped(self._cluster):
            bound = BoundStatement(prepared, fetch_size=page).bind(values)
            return await rows(self._session.execute_async(bound, execution_profile=self._profile))


class EventReaders(Connections[EventReader]):
    """A reader for every cluster, connected when first asked for, so that a dead cluster troubles its own tenants only.

    `of` raises StoreError when no node answers, access is refused, or the table is not there, and ConfigurationError when a
    password or TLS file is not where the registry says.
    """

    def __init__(self, limits: ReaderSettings) -> None:
        super().__init__(partial(_connected, limits))


def _connected(limits: ReaderSettings, cluster: Cluster) -> EventReader:
    session = connect(cluster, request_timeout=limits.request_timeout)
    try:
        return EventReader(cluster, session, limits)
    except BaseException:
        close(session)
        raise


def _stored(row: tuple[Any, ...]) -> StoredEvent:
    ts, eid, event, properties, context = row
    return StoredEvent(_millis(ts), eid, event, msgspec.Raw(properties), msgspec.Raw(context))


def _seen(row: tuple[Any, ...]) -> SeenPost:
    """An erasure's delete shadows the first time of what is seen later in the same bucket: then the last one stands for it."""
    post, first, last = row
    return SeenPost(post, _millis(first or last or _EPOCH), _millis(last or first or _EPOCH))


def _millis(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND
