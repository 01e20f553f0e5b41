import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.events.cells import Batch
from eventstore.ingest.grouping import BatchLimit, cut

pytestmark = pytest.mark.properties

batches = st.lists(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20), max_size=8)
limits = st.builds(BatchLimit, rows=st.integers(1, 6), size_bytes=st.integers(100, 900))


@given(batches, limits)
def test_cutting_keeps_every_row_once_and_in_order(batches: list[Batch], limit: BatchLimit) -> None:
    pieces = list(cut(batches, limit))
    assert [row for piece in pieces for row in piece] == [row for batch in batches for row in batch]
    assert all(pieces)


@given(batches, limits)
def test_no_piece_is_beyond_the_limit_but_a_single_row(batches: list[Batch], limit: BatchLimit) -> None:
    for piece in cut(batches, limit):
        assert len(piece) <= limit.rows
        assert sum(map(len, piece)) <= limit.size_bytes or len(piece) == 1


@given(batches)
def test_what_is_within_the_limit_is_left_whole(batches: list[Batch]) -> None:
    assert list(cut(batches, BatchLimit(rows=10**6, size_bytes=10**9))) == batches
