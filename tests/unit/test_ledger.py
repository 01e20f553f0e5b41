import pytest

from eventstore.stream.ledger import Ledger

pytestmark = pytest.mark.unit


def test_a_hole_stops_the_commit() -> None:
    ledger = Ledger()
    first, second, third = ledger.open(10, 10), ledger.open(11, 14), ledger.open(15, 15)
    ledger.finish(first)
    ledger.finish(third)
    assert ledger.committable() == 11
    ledger.finish(second)
    assert ledger.committable() == 16


def test_what_kafka_has_is_not_committed_again() -> None:
    ledger = Ledger()
    ledger.finish(ledger.open(0, 4))
    ledger.committed(5)
    assert ledger.committable() is None


def test_nothing_is_committable_before_the_first_chunk_is_finished() -> None:
    ledger = Ledger()
    ledger.open(0, 4)
    assert ledger.committable() is None


@pytest.mark.parametrize(("first", "last"), [(3, 3), (5, 5), (9, 8)])
def test_offsets_that_do_not_continue_are_refused(first: int, last: int) -> None:
    ledger = Ledger()
    ledger.open(0, 5)
    with pytest.raises(ValueError, match="expected offsets above 5"):
        ledger.open(first, last)
