"""Whatever a tenant asks for and when: no more than its rate and one burst."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.gateway.limits import TenantLimits
from eventstore.tenancy import RateLimit

pytestmark = pytest.mark.properties

limits = st.builds(RateLimit, st.integers(1, 1_000), st.integers(1, 1_000))
asked = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 2_000)), max_size=60)


@given(limits, asked)
def test_a_tenant_gets_at_most_its_rate_a_burst_and_one_large_request(
    limit: RateLimit, requests: list[tuple[float, int]]
) -> None:
    buckets, now, got, largest = TenantLimits(), 0.0, 0, 0
    for pause, tokens in requests:
        now += pause
        if buckets.wait("shop", limit, tokens, now) == 0:
            got += tokens
            largest = max(largest, tokens)
    assert got <= limit.burst + now * limit.per_second + largest + 1e-6


@given(limits, asked)
def test_who_waits_as_long_as_told_is_let_in(limit: RateLimit, requests: list[tuple[float, int]]) -> None:
    buckets, now = TenantLimits(), 0.0
    for pause, tokens in requests:
        now += pause
        wait = buckets.wait("shop", limit, tokens, now)
        now += wait + 1e-6
        if wait:
            assert buckets.wait("shop", limit, tokens, now) == 0


@given(limits, asked)
def test_one_tenants_flood_takes_nothing_from_another(limit: RateLimit, requests: list[tuple[float, int]]) -> None:
    buckets = TenantLimits()
    for _, tokens in requests:
        buckets.wait("flood", limit, tokens, 0.0)
    assert buckets.wait("calm", limit, limit.burst, 0.0) == 0


def test_a_tenant_without_a_limit_is_never_told_to_wait() -> None:
    assert TenantLimits().wait("shop", None, 10**9, 0.0) == 0


@given(limits)
def test_an_edited_limit_begins_anew(limit: RateLimit) -> None:
    buckets = TenantLimits()
    buckets.wait("shop", limit, limit.burst, 0.0)
    assert buckets.wait("shop", RateLimit(limit.per_second, limit.burst + 1), 1, 0.0) == 0
