from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.events.row import Row
from eventstore.ingest.grouping import ROW_OVERHEAD_BYTES, BatchLimit, group

pytestmark = pytest.mark.properties

rows = st.lists(
    st.builds(
        Row,
        uid=st.sampled_from(["u1", "u2"]), tenant=st.sampled_from(["shop", "forum"]), bid=st.integers(0, 2),
        ts_ms=st.integers(0, 10), eid=st.binary(min_size=16, max_size=16), event=st.just("seen"),
        properties=st.binary(max_size=300), context=st.just(b"{}"), write_micros=st.just(0),
        ttl_seconds=st.one_of(st.none(), st.integers(1, 9)),
    ), max_size=60,
)  # fmt: skip
limits = st.builds(BatchLimit, rows=st.integers(1, 6), size_bytes=st.integers(100, 900))


@given(rows, limits)
def test_grouping_keeps_every_row_once_in_batches_of_one_partition(rows: list[Row], limit: BatchLimit) -> None:
    batches = group(rows, limit)
    assert Counter(map(id, rows)) == Counter(id(row) for batch in batches for row in batch)
    for batch in batches:
        assert len({(row.uid, row.tenant, row.bid) for row in batch}) == 1
        assert len(batch) <= limit.rows
        size = sum(ROW_OVERHEAD_BYTES + len(row.properties) for row in batch)
        assert size <= limit.size_bytes or len(batch) == 1


@given(rows)
def test_batches_are_as_few_as_rows_allow(rows: list[Row]) -> None:
    batches = group(rows, BatchLimit(rows=10**6, size_bytes=10**9))
    assert len(batches) == len({(row.uid, row.tenant, row.bid) for row in rows})
