"""Certain rows of one cluster, read back as they were written: for whoever proves that they are there."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Session
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.query import tuple_factory

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


class RowLookup:
    """Connects at once. Every method blocks, and raises StoreError when the cluster cannot or will not answer."""

    def __init__(self, cluster: Cluster, request_timeout: float) -> None:
        self._cluster = cluster.name
        self._session: Session = connect(cluster, request_timeout=request_timeout)
        self._profile = self._session.execution_profile_clone_update(EXEC_PROFILE_DEFAULT, row_factory=tuple_factory)
        try:
            with mapped(self._cluster):
                self._read = self._session.prepare(statement("read_rows"))
        except BaseException:
            close(self._session)
            raise

    def find(self, keys: Iterable[RowKey]) -> dict[RowKey, StoredRow]:
        """Those of the rows that are there, by quorum."""
        with mapped(self._cluster):
            answers = execute_concurrent_with_args(
                self._session, self._read, list(_questions(keys)), concurrency=CONCURRENT, raise_on_first_error=False,
                execution_profile=self._profile,
            )  # fmt: skip
        found: dict[RowKey, StoredRow] = {}
        for succeeded, answer in answers:
            if not succeeded:
                raise store_error(answer, self._cluster)
            found.update(map(_row, answer))
        return found

    def close(self) -> None:
        close(self._session)


def _questions(keys: Iterable[RowKey]) -> Iterator[tuple[Any, ...]]:
    """What the statement binds: the rows of one partition together."""
    by_partition: dict[PartitionKey, list[tuple[int, UUID]]] = {}
    for key in dict.fromkeys(keys):
        by_partition.setdefault(key.partition, []).append((key.ts_ms, UUID(bytes=key.eid)))
    for partition, places in by_partition.items():
        for start in range(0, len(places), ROWS_AT_ONCE):
            yield (*partition, places[start : start + ROWS_AT_ONCE])


def _row(row: tuple[Any, ...]) -> tuple[RowKey, StoredRow]:
    uid, tenant, bid, ts, eid, event, properties, context, write_micros, ttl_seconds = row
    key = RowKey(PartitionKey(uid, tenant, bid), (ts - _EPOCH) // _MILLISECOND, eid.bytes)
    return key, StoredRow(
        event or "", (properties or "").encode(), (context or "").encode(), write_micros or 0, ttl_seconds
    )
