"""Reading events over CQL: the `TimelineStore` of `eventstore.timeline`, one cluster each."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from struct import Struct
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

from cassandra.cluster import Session

from eventstore.config import ReaderSettings
from eventstore.events.cells import FRESH, FRESH_LATEST, INT, LAST_SEEN, Cells, text
from eventstore.events.stored import LOWEST_EID, Partition, SeenPost, Slice, StoredEvent
from eventstore.store.connections import Connections
from eventstore.store.failures import mapped
from eventstore.store.lane.line import Limits
from eventstore.store.lane.nodes import Nodes
from eventstore.store.lane.read_lane import Question, ReadLane
from eventstore.store.lane.rows import COUNTS, EVENTS, ITEMS, POSTS, Rows
from eventstore.store.opening import session_for
from eventstore.tenancy import Cluster

T = TypeVar("T")

MOST_ATTEMPTS: Final = 32
"""Clusters connected to at the same time. That blocks, so it has threads of its own: those of the event loop stay free."""

_BIGINT: Final = Struct(">iq").pack
_SIXTEEN: Final = INT(16)


class Range(NamedTuple):
    """A restriction inside one partition: the suffix of its statements' names, and the cells that they bind behind the key."""

    name: str
    cells: tuple[bytes, ...]


def ranges(part: Slice, event: str | None) -> list[Range]:
    """The slice as restrictions to be read one after the other.

    With a filter on the name a tuple must not stand beside ALLOW FILTERING: ScyllaDB before the autumn of 2026 compares
    tuples of descending columns the wrong way round then, and finds nothing (scylladb/scylladb#31631). So the rest of
    the position's own millisecond is a range of its own.
    """
    since, before = _bigint(part.since_ms), _bigint(part.before.timestamp_ms)
    eid = _uuid(part.before.eid)
    if event is None:
        return [Range("slice", (since, _uuid(LOWEST_EID), before, eid))]
    older = Range("named_slice", (since, before, text(event)))
    if part.before.eid == LOWEST_EID:
        return [older]
    return [Range("named_moment", (before, eid, text(event))), older]


COUNTED_AT_ONCE: Final = 5_000
"""Rows that the server counts at a stretch: the page size is its unit of work, though a count answers one row."""
NAMED_AT_ONCE: Final = 100
"""Rows that one read names: ScyllaDB's default for max_clustering_key_restrictions_per_query. Cassandra takes more, but ten times
as long for five times as many."""


class EventReader:
    """One cluster's events. The driver's session tells the topology; reads go over lanes of our own, as writes do."""

    def __init__(self, nodes: Nodes[ReadLane], page_rows: int) -> None:
        self.nodes = nodes
        self._page_rows = page_rows

    @classmethod
    async def open(cls, cluster: Cluster, session: Session, limits: ReaderSettings) -> "EventReader":
        """Connect to the nodes of the cluster's datacenter. The reader closes the session at its end, or if this fails.

        Raises:
            ConfigurationError: a password or TLS file is not where the registry says.
            StoreError: no node can be reached, or one refuses us; the statements cannot be prepared, mostly because the
                table is not there.
        """
        nodes = await Nodes.open(ReadLane, cluster, session, Limits(timeout=limits.request_timeout))
        return cls(nodes, limits.page_rows)

    async def read(self, part: Slice, event: str | None, limit: int) -> list[StoredEvent]:
        """The newest `limit` rows of the slice, newest first; fewer only if it has no more.

        Raises:
            TransientStoreError: overloaded, timed out, gone.
            PermanentStoreError: the schema does not fit, or access is refused.
        """
        found: list[StoredEvent] = []
        key = _events_of(part)
        for where in ranges(part, event):
            left = limit - len(found)
            if left > 0:
                question = _question(f"read_{where.name}", key, 3, *where.cells, _int(left))
                found += await self._rows(question, min(left, self._page_rows), EVENTS)
        return found

    async def count(self, part: Slice, event: str | None) -> int:
        """The number of rows of the slice, counted by the server. Raises as `read` does."""
        found: list[int] = []
        for where in ranges(part, event):
            question = _question(f"count_{where.name}", _events_of(part), 3, *where.cells)
            found += await self._rows(question, COUNTED_AT_ONCE, COUNTS)
        return sum(found)

    async def latest(self, tenant: str, uid: str, names: Sequence[str]) -> list[StoredEvent]:
        """The newest event of each of the names that the table `latest` has one of; at most 100 are asked for (ScyllaDB's
        default limit). Raises as `read` does.
        """
        key = FRESH_LATEST + text(uid) + text(tenant)
        return await self._rows(_question("read_latest", key, 2, _list(names)), len(names), ITEMS)

    async def seen(self, partition: Partition, posts: Sequence[str]) -> list[SeenPost]:
        """Those of the posts that are there. Raises as `read` does."""
        key = _posts_of(partition)
        parts = [posts[start : start + NAMED_AT_ONCE] for start in range(0, len(posts), NAMED_AT_ONCE)]
        answers = await asyncio.gather(*(
            self._rows(_question("read_seen_posts", key, 3, _list(part)), len(part), POSTS) for part in parts
        ))  # fmt: skip
        return [seen for answer in answers for seen in answer]

    async def posts(self, partition: Partition, after: str, limit: int) -> list[SeenPost]:
        """The first `limit` posts after `after`, in the order of their UTF-8. Raises as `read` does."""
        question = _question("read_posts", _posts_of(partition), 3, text(after), _int(limit))
        return await self._rows(question, min(limit, self._page_rows), POSTS)

    async def close(self) -> None:
        await self.nodes.close()

    async def _rows(self, question: Question, size: int, kind: Rows[T]) -> list[T]:
        """All rows, fetched page by page. How many that may be is the statement's LIMIT to say.

        A server may cut a page short of the rows that are left (ScyllaDB at 1 MiB, and wherever a filter scanned much), and
        even empty: only its paging state says that there is more. Every page has the request's time-out anew.
        """
        lane = self.nodes.router.pick(question.key, self.nodes.by_host)
        if lane is None:
            raise self.nodes.unreachable()
        with mapped(self.nodes.cluster):
            page = kind.page(await lane.page(question, size, None))
            found = page.rows
            while page.state is not None:
                page = kind.page(await lane.page(question, size, page.state))
                found += page.rows
        return found


class EventReaders(Connections[EventReader]):
    """A reader for every cluster, connected when first asked for, so that a dead cluster troubles its own tenants only.

    `of` raises StoreError when no node answers, access is refused, or the table is not there, and ConfigurationError when a
    password or TLS file is not where the registry says.
    """

    def __init__(self, limits: ReaderSettings) -> None:
        self._threads = ThreadPoolExecutor(MOST_ATTEMPTS, "connect")
        super().__init__(partial(_connected, limits, self._threads))

    async def close(self) -> None:
        await super().close()
        self._threads.shutdown(wait=False)


async def _connected(limits: ReaderSettings, threads: ThreadPoolExecutor, cluster: Cluster) -> EventReader:
    session = await session_for(cluster, limits.request_timeout, threads)
    return await EventReader.open(cluster, session, limits)


def _question(statement: str, key: Cells, keys: int, *others: bytes) -> Question:
    return Question(statement, key, b"".join(others), keys + len(others))


def _events_of(part: Slice) -> Cells:
    return b"".join((FRESH, text(part.uid), text(part.tenant), _int(part.bid)))


def _posts_of(of: Partition) -> Cells:
    return b"".join((LAST_SEEN, text(of.uid), text(of.tenant), _int(of.bid)))


def _int(value: int) -> bytes:
    return INT(4) + INT(value)


def _bigint(value: int) -> bytes:
    return _BIGINT(8, value)


def _uuid(value: UUID) -> bytes:
    return _SIXTEEN + value.bytes


def _list(values: Sequence[str]) -> bytes:
    content = INT(len(values)) + b"".join(map(text, values))
    return INT(len(content)) + content
