from datetime import UTC, datetime, timedelta

import pytest

from eventstore.events.moment import parse_moment

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "text",
    ["2026-03-01T12:00:00Z", "2026-03-01t12:00:00z", "2026-03-01 13:00:00+01:00", "2026-03-01T11:59:59.9999996Z"],
)
def test_rfc_3339_with_a_zone_is_a_moment(text: str) -> None:
    assert parse_moment(text) - datetime(2026, 3, 1, 12, tzinfo=UTC) == timedelta()


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026-03-01", "2026-03-01T12:00:00", "20260301T120000Z", "2026-02-30T00:00:00Z", "1790000000000",
     "2026-03-01T12:00Z", "2026-W09-7T12:00:00Z", "2026-03-01T12:00:00Z "],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected RFC 3339 with a zone, such as \S+, got '.*'$"):
        parse_moment(text)
