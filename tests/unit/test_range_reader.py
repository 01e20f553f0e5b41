"""Which records of a range are still to come: rules without servers."""

import pytest

from eventstore.stream.range_reader import Coming

pytestmark = pytest.mark.unit


def test_a_partition_is_done_with_when_its_last_record_has_come() -> None:
    coming = Coming({0: (5, 7), 1: (3, 3)})
    assert coming.partitions == {0}
    assert coming.takes(0, 5)
    assert coming.takes(0, 6)
    assert not coming.partitions
    assert (coming.passed, coming.total) == (2, 2)


def test_a_record_behind_the_end_is_not_taken_and_shows_that_the_rest_is_a_gap() -> None:
    coming = Coming({0: (5, 9)})
    assert coming.takes(0, 5)
    assert not coming.takes(0, 12)
    assert not coming.partitions
    assert coming.passed == 1


def test_a_record_of_another_partition_is_not_taken() -> None:
    assert not Coming({0: (5, 9)}).takes(1, 5)


def test_the_end_of_a_partition_ends_the_reading_only_where_the_range_ends() -> None:
    coming = Coming({0: (5, 9)})
    coming.ended(0, 7)
    assert coming.partitions == {0}, "a new leader that has not heard yet how far the topic goes"
    coming.ended(0, 9)
    assert not coming.partitions


def test_an_end_that_lies_behind_that_of_the_range_is_one_too() -> None:
    coming = Coming({0: (5, 9)})
    coming.ended(0, 30)
    coming.ended(0, 30)
    assert not coming.partitions
