"""Deleting whole partitions up to a moment."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from cassandra import ConsistencyLevel
from cassandra.cluster import Session
from cassandra.concurrent import execute_concurrent_with_args

from eventstore.errors import TransientStoreError
from eventstore.store.failures import mapped, store_error
from eventstore.store.session import close, connect
from eventstore.store.statements import statement
from eventstore.tenancy import Cluster

CONCURRENT: Final = 64
"""Deletes under way at the same time."""


class Doomed(NamedTuple):
    """A user's bucket, and the last write time in microseconds that is to go; rows written later stay."""

    to_micros: int
    uid: str
    tenant: str
    bid: int


def delete_partitions(cluster: Cluster, doomed: Sequence[Doomed], *, request_timeout: float) -> None:
    """Delete on every replica; safe to repeat. The delete carries the moment as its own write time.

    Of each bucket the events and impressions go, and of each user the latest events, which know no buckets.

    First a quorum, so that readers see nothing any more even while a node is down. Then every replica: one that
    missed the delete would bring the rows back to the others once these have dropped their tombstones.

    Raises:
        TransientStoreError: no quorum, or (as its message says) not yet on every replica: repeat it.
        PermanentStoreError: the table is not there, or access is refused.
    """
    session = connect(cluster, request_timeout=request_timeout)
    try:
        _delete(cluster, session, doomed, ConsistencyLevel.LOCAL_QUORUM)
        try:
            _delete(cluster, session, doomed, ConsistencyLevel.ALL)
        except TransientStoreError as error:
            raise TransientStoreError(
                f"{error}; no reader sees the rows, but not every replica has deleted them: repeat this within "
                "gc_grace_seconds (a day), once all nodes are up"
            ) from error
    finally:
        close(session)


def _delete(cluster: Cluster, session: Session, doomed: Sequence[Doomed], consistency: int) -> None:
    users = list(dict.fromkeys(each[:-1] for each in doomed))
    for name, partitions in (("delete_events", doomed), ("delete_impressions", doomed), ("delete_latest", users)):
        with mapped(cluster.name):
            prepared = session.prepare(statement(name))
            prepared.consistency_level = consistency
            results = execute_concurrent_with_args(
                session, prepared, partitions, concurrency=CONCURRENT, raise_on_first_error=False
            )
        for succeeded, failure in results:
            if not succeeded:
                raise store_error(failure, cluster.name)
