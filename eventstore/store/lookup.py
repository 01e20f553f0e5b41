"""Certain rows of one cluster, read back as they were written: for whoever proves that they are there."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Session
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.query import PreparedStatement, tuple_factory

from eventstore.store.failures import mapped, store_error
from eventstore.store.session import close, connect
from eventstore.store.statements import statement
from eventstore.tenancy import Cluster

CONCURRENT: Final = 64
"""Reads under way at the same time."""
ROWS_AT_ONCE: Final = 100
"""Most rows of one read: ScyllaDB's default for max_clustering_key_restrictions_per_query."""
_EPOCH: Final = datetime(1970, 1, 1)  # naive like the driver's
_MILLISECOND: Final = timedelta(milliseconds=1)


class PartitionKey(NamedTuple):
    uid: str
    tenant: str
    bid: int


class RowKey(NamedTuple):
    partition: PartitionKey
    ts_ms: int
    eid: bytes


class StoredRow(NamedTuple):
    """A column that somebody has left out is empty."""

    event: str
    properties: bytes
    context: bytes
    write_micros: int
    """0: nobody has written the event's name."""
    ttl_seconds: int | None
    """Until it expires; None: never."""


class PostKey(NamedTuple):
    partition: PartitionKey
    post: str


class StoredPost(NamedTuple):
    """When a post was seen, in ms since the epoch. A time that an erasure's delete shadows is None."""

    first_ms: int | None
    last_ms: int | None
    ttl_seconds: int | None
    """Until the last time expires; None: never."""

    def spans(self, at_ms: int) -> bool:
        """Whether the row tells of a sighting at this time; where the first time is shadowed, of any up to the last."""
        return (self.first_ms or 0) <= at_ms <= (self.last_ms or 0)

    def begins_by(self, at_ms: int) -> bool:
        """Whether the row tells of a sighting at this time or earlier."""
        times = [time for time in (self.first_ms, self.last_ms) if time is not None]
        return bool(times) and min(times) <= at_ms


class RowLookup:
    """Connects at once. Every method blocks, and raises StoreError when the cluster cannot or will not answer."""

    def __init__(self, cluster: Cluster, request_timeout: float) -> None:
        self._cluster = cluster.name
        self._session: Session = connect(cluster, request_timeout=request_timeout)
        self._profile = self._session.execution_profile_clone_update(EXEC_PROFILE_DEFAULT, row_factory=tuple_factory)
        try:
            with mapped(self._cluster):
                self._rows = self._session.prepare(statement("read_rows"))
                self._posts = self._session.prepare(statement("read_post_rows"))
        except BaseException:
            close(self._session)
            raise

    def find(self, keys: Iterable[RowKey]) -> dict[RowKey, StoredRow]:
        """Those of the rows of events that are there, by quorum."""
        places = [(key.partition, (key.ts_ms, UUID(bytes=key.eid))) for key in dict.fromkeys(keys)]
        return dict(map(_row, self._answers(self._rows, places)))

    def find_posts(self, keys: Iterable[PostKey]) -> dict[PostKey, StoredPost]:
        """Those of the rows of impressions that are there, by quorum."""
        return dict(map(_post, self._answers(self._posts, list(dict.fromkeys(keys)))))

    def close(self) -> None:
        close(self._session)

    def _answers(self, prepared: PreparedStatement, places: Sequence[tuple[PartitionKey, Any]]) -> Iterator[Any]:
        if not places:
            return
        with mapped(self._cluster):
            answers = execute_concurrent_with_args(
                self._session, prepared, list(_questions(places)), concurrency=CONCURRENT, raise_on_first_error=False,
                execution_profile=self._profile,
            )  # fmt: skip
        for succeeded, answer in answers:
            if not succeeded:
                raise store_error(answer, self._cluster)
            yield from answer


def _questions(places: Iterable[tuple[PartitionKey, Any]]) -> Iterator[tuple[Any, ...]]:
    """What the statement binds: the rows of one partition together."""
    by_partition: dict[PartitionKey, list[Any]] = {}
    for partition, place in places:
        by_partition.setdefault(partition, []).append(place)
    for partition, found in by_partition.items():
        for start in range(0, len(found), ROWS_AT_ONCE):
            yield (*partition, found[start : start + ROWS_AT_ONCE])


def _row(row: tuple[Any, ...]) -> tuple[RowKey, StoredRow]:
    uid, tenant, bid, ts, eid, event, properties, context, write_micros, ttl_seconds = row
    key = RowKey(PartitionKey(uid, tenant, bid), _millis(ts), eid.bytes)
    return key, StoredRow(
        event or "", (properties or "").encode(), (context or "").encode(), write_micros or 0, ttl_seconds
    )


def _post(row: tuple[Any, ...]) -> tuple[PostKey, StoredPost]:
    uid, tenant, bid, post, first, last, ttl_seconds = row
    first_ms, last_ms = (None if moment is None else _millis(moment) for moment in (first, last))
    return PostKey(PartitionKey(uid, tenant, bid), post), StoredPost(first_ms, last_ms, ttl_seconds)


def _millis(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND
