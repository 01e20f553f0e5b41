import pytest

from eventstore.errors import RefusedError
from eventstore.events import Reason
from eventstore.ingest.rejects import RejectLimit, RejectWindow

pytestmark = pytest.mark.unit

LIMIT = RejectLimit(share=0.5, records=1_000, seconds=60)
BAD = Reason.MALFORMED


def test_a_share_above_the_limit_halts_and_says_what_was_wrong() -> None:
    window = RejectWindow(LIMIT)
    with pytest.raises(RefusedError) as halted:
        window.add(2_000, [BAD] * 1_200 + [Reason.SCHEMA] * 300, now=0.0)
    assert "at most 50% of the records of 60 s, got 1,500 of 2,000 (malformed 1,200, schema 300)" in str(halted.value)
    assert halted.value.exit_code == 3


def test_half_is_not_more_than_half() -> None:
    RejectWindow(LIMIT).add(2_000, [BAD] * 1_000, now=0.0)


def test_a_few_records_say_nothing_until_there_are_enough() -> None:
    window = RejectWindow(LIMIT)
    for second in range(9):
        window.add(111, [BAD] * 111, now=float(second))
    with pytest.raises(RefusedError, match="1,000 of 1,000"):
        window.add(1, [BAD], now=9.0)


def test_rejects_of_long_ago_are_forgotten() -> None:
    window = RejectWindow(LIMIT)
    window.add(999, [BAD] * 999, now=0.0)
    window.add(1, [BAD], now=62.1)
    window.add(998, [], now=62.2)
    window.add(1, [BAD], now=62.3)


def test_sound_records_of_the_same_window_weigh_against_rejects() -> None:
    window = RejectWindow(LIMIT)
    window.add(5_000, [], now=0.0)
    window.add(2_000, [BAD] * 2_000, now=30.0)
    with pytest.raises(RefusedError):
        window.add(2_000, [BAD] * 2_000, now=62.1)


def test_a_share_of_one_never_halts() -> None:
    RejectWindow(RejectLimit(share=1.0)).add(100_000, [BAD] * 100_000, now=0.0)
