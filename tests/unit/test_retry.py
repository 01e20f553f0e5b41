import asyncio
from collections.abc import Sequence

import pytest

from eventstore.errors import PermanentStoreError, StoreError, TransientStoreError
from eventstore.events.cells import Batch
from eventstore.ingest.retry import RetryPolicy, Unstored, write_until_stored
from eventstore.store.writer import Failure
from tests import builders
from tests.builders import uid_of
from tests.waiting import eventually

pytestmark = pytest.mark.unit

QUICK = RetryPolicy(base_seconds=0.0001, most_seconds=0.001, deadline_seconds=10)


def batch(uid: str) -> Batch:
    return builders.batch(builders.row(uid=uid))


class Cluster:
    """A writer that fails as it is told and remembers what it stored."""

    cluster = "es15"
    acknowledged = 0

    def __init__(self, *failing: dict[str, StoreError]) -> None:
        self.failing = list(failing)
        self.stored: list[str] = []

    async def write(self, batches: Sequence[Batch]) -> list[Failure]:
        errors = self.failing.pop(0) if self.failing else {}
        self.stored += [uid_of(b[0]) for b in batches if uid_of(b[0]) not in errors]
        return [Failure(b, errors[uid_of(b[0])]) for b in batches if uid_of(b[0]) in errors]

    async def close(self) -> None: ...


def write(cluster: Cluster, uids: str, clock: Sequence[float] = ()) -> None:
    ticks = iter(clock)
    asyncio.run(
        write_until_stored(
            cluster,
            Unstored([batch(uid) for uid in uids]),
            QUICK,
            monotonic=lambda: next(ticks, 0.0),
            chance=lambda: 0.5,
        )
    )


def test_only_the_failed_batches_are_written_again() -> None:
    overloaded = TransientStoreError("overloaded")
    cluster = Cluster({"a": overloaded, "b": overloaded}, {"b": overloaded})
    write(cluster, "abc")
    assert cluster.stored == ["c", "a", "b"]


def test_a_permanent_failure_is_not_tried_again() -> None:
    cluster = Cluster({"a": TransientStoreError("busy"), "b": PermanentStoreError("no such column")})
    with pytest.raises(PermanentStoreError, match="no such column"):
        write(cluster, "ab")
    assert cluster.stored == []


def test_failing_beyond_the_deadline_ends_the_attempt() -> None:
    gone: dict[str, StoreError] = {"a": TransientStoreError("gone")}
    cluster = Cluster(*[gone] * 3)
    with pytest.raises(TransientStoreError, match="gone"):
        write(cluster, "a", clock=[0.0, 5.0, 10.0])
    assert len(cluster.failing) == 1


def test_an_attempt_of_which_nothing_was_stored_is_told() -> None:
    busy = TransientStoreError("busy")
    told: list[str] = []
    cluster = Cluster({"a": busy}, {"a": busy})
    asyncio.run(
        write_until_stored(
            cluster, Unstored([batch("a"), batch("b")]), QUICK, monotonic=lambda: 0.0, refused=told.append
        )
    )
    assert told == ["busy"]  # the second attempt: the first has stored one of two


def test_what_is_left_is_told_although_the_attempt_is_called_off() -> None:
    async def run() -> Unstored:
        lost: dict[str, StoreError] = {"b": TransientStoreError("no quorum")}
        cluster = Cluster(*[lost] * 10_000)
        unstored = Unstored([batch(uid) for uid in "abc"])
        writing = asyncio.create_task(write_until_stored(cluster, unstored, QUICK, monotonic=lambda: 0.0))
        await eventually(lambda: cluster.stored == ["a", "c"], "the others")
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        return unstored

    assert [uid_of(each[0]) for each in asyncio.run(run()).batches] == ["b"]


def test_progress_puts_the_deadline_off() -> None:
    slow = TransientStoreError("slow")
    cluster = Cluster({"a": slow, "b": slow}, {"b": slow}, {"b": slow})
    write(cluster, "ab", clock=[0.0, 9.0, 11.0, 20.0])
    assert cluster.stored == ["a", "b"]


def test_the_delay_doubles_up_to_its_cap_and_is_jittered_over_its_whole_range() -> None:
    policy = RetryPolicy(base_seconds=0.1, most_seconds=1.0)
    assert [policy.delay(n, 1.0) for n in (1, 2, 3, 4, 5, 5_000)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert policy.delay(4, 0.0) == 0.0
