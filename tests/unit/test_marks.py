import pytest

from eventstore.replay.marks import Mark, increments_before, records_gone
from eventstore.stream.offsets import Held

pytestmark = pytest.mark.unit


def mark(name: str, at: int, snapshot: str | None = "s1", **offsets: int) -> Mark:
    by_partition = {int(partition.removeprefix("p")): offset for partition, offset in offsets.items()}
    return Mark(
        name=name, created_ms=at, topic="events", group="g", offsets=by_partition, cluster="c30", snapshot=snapshot
    )


def test_a_restore_needs_the_increments_between_the_snapshot_and_its_mark() -> None:
    marks = [
        mark("s1", 1),
        mark("a", 2),
        mark("failed", 3, None),
        mark("other", 4, "s2"),
        mark("b", 5),
        mark("later", 6),
    ]
    assert increments_before(marks[4], marks) == ["a", "b"]
    assert increments_before(marks[0], marks) == []


def test_records_are_gone_that_the_topic_has_let_go_of_since_the_mark() -> None:
    held = {0: Held(10, 90), 1: Held(10, 90)}
    assert records_gone(mark("m", 1, p0=10, p1=40), held) == 0
    assert records_gone(mark("m", 1, p0=4, p1=9), held) == 7
