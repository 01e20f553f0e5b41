"""Ranges, progress and samples hold for whatever offsets Kafka and operators come up with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.replay.plan import Plan, progress
from eventstore.replay.preview import points
from eventstore.replay.ranges import Range, aged_out, clipped, overlap, ranges
from eventstore.replay.scope import Scope
from eventstore.stream.offsets import Held

pytestmark = pytest.mark.properties

offsets = st.integers(0, 1_000)
some_offsets = st.dictionaries(st.integers(0, 3), offsets)
held = st.tuples(offsets, offsets).map(lambda pair: Held(min(pair), max(pair)))
topics = st.lists(held, min_size=4, max_size=4).map(lambda each: dict(enumerate(each)))
some_ranges = st.dictionaries(
    st.integers(0, 3), st.tuples(offsets, offsets).map(lambda pair: Range(min(pair), max(pair)))
)


@given(some_offsets, some_offsets, topics)
def test_every_partition_gets_a_range_that_ends_within_the_topic(
    starts: dict[int, int], ends: dict[int, int], there: dict[int, Held]
) -> None:
    found = ranges(starts, ends, there)
    assert found.keys() == there.keys()
    for partition, each in found.items():
        assert each.start <= each.end
        if each.records:
            assert each.start == starts[partition]
            assert each.end <= min(ends[partition], there[partition].end)


@given(some_offsets, some_offsets, topics)
def test_what_is_not_held_is_either_told_or_not_asked_for(
    starts: dict[int, int], ends: dict[int, int], there: dict[int, Held]
) -> None:
    asked = ranges(starts, ends, there)
    told = list(aged_out("events", asked, there, {}))
    left = clipped(asked, there)
    assert len(told) == sum(each.records and each.start < there[p].first for p, each in asked.items())
    for partition, each in left.items():
        assert each.start >= there[partition].first
        assert each.records <= asked[partition].records


@given(some_ranges, some_ranges)
def test_two_ranges_overlap_where_they_share_an_offset(one: dict[int, Range], other: dict[int, Range]) -> None:
    shared = [
        partition
        for partition in one.keys() & other.keys()
        if set(range(one[partition].start, one[partition].end))
        & set(range(other[partition].start, other[partition].end))
    ]
    assert sorted(overlap(one, other)) == sorted(shared)


@given(some_ranges, some_offsets, some_offsets)
def test_progress_grows_with_what_is_committed_and_never_passes_the_end(
    wanted: dict[int, Range], committed: dict[int, int], more: dict[int, int]
) -> None:
    made = Plan("r", "events", "g", wanted, Scope(), (), 0)
    later = {partition: offset + more.get(partition, 0) for partition, offset in committed.items()}
    before, after = progress(made, committed), progress(made, later)
    assert 0 <= before.done <= after.done <= after.total == made.records
    assert before.done + sum(each.records for each in before.left().values()) == before.total
    assert progress(made, made.ends()).finished


@given(st.tuples(offsets, offsets).map(lambda pair: Range(min(pair), max(pair))), st.integers(1, 50))
def test_a_sample_looks_at_offsets_of_the_range_only_and_at_none_twice(each: Range, most: int) -> None:
    looked = [offset for start, end in points(each, most) for offset in range(start, end)]
    assert len(looked) == len(set(looked)) == min(each.records, 3 * most)
    assert set(looked) <= set(range(each.start, each.end))
    if looked:
        assert {each.start, each.end - 1} <= set(looked)
