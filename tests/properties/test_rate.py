"""A rate limit holds over every stretch of time, whatever asks and whenever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.ingest.rate import BURST_SECONDS, RateLimit

pytestmark = pytest.mark.properties

asked = st.lists(st.tuples(st.integers(1, 2_000), st.floats(0, 30)), min_size=1, max_size=40)


@given(st.floats(1, 100_000), asked)
def test_no_stretch_of_time_sees_more_than_its_share_and_one_grant(
    rate: float, requests: list[tuple[int, float]]
) -> None:
    limit = RateLimit(rate)
    now = 0.0
    grants: list[tuple[float, int]] = []
    for records, pause in requests:
        now += pause
        now += limit.delay(records, now)  # whoever asks waits before working and asking again
        grants.append((now, records))
    for first, (start, _) in enumerate(grants):
        total = 0
        for end, records in grants[first:]:
            total += records
            share = (end - start + BURST_SECONDS) * rate + records
            assert total <= share * (1 + 1e-6) + 1


@given(st.floats(1, 100_000), st.integers(1, 50))
def test_whoever_asks_for_less_than_the_rate_never_waits(rate: float, requests: int) -> None:
    limit = RateLimit(rate)
    for second in range(requests):
        assert limit.delay(max(1, int(rate)), float(second)) <= 1e-6
