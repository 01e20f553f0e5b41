"""A member's books where the state machine of `tests/properties/test_assignment.py` does not look: ends, and what records weigh."""

import pytest
from confluent_kafka import Message

from eventstore.stream.assignment import Assignments, ConsumerPolicy, Place

pytestmark = pytest.mark.unit

PLACE = Place("events", 0)


def records(
    first: int, last: int, *, key: bytes = b"k", headers: list[tuple[str, bytes]] | None = None
) -> list[Message]:
    return [
        Message(topic=PLACE.topic, partition=PLACE.partition, offset=offset, key=key, value=b"x", headers=headers)
        for offset in range(first, last + 1)
    ]


def member(end: int | None = None) -> Assignments:
    made = Assignments(ConsumerPolicy(ends=None if end is None else {PLACE: end}), lambda _: None)
    made.add({PLACE: 0})
    return made


def test_an_end_is_committed_once_all_before_it_is_finished() -> None:
    books = member(end=20)  # the last records are gone, or markers of transactions
    chunk = books.take(PLACE, records(0, 14))
    assert chunk is not None
    books.book([chunk])
    ended = books.arrived(PLACE, 20)
    assert ended is not None
    ended.close()
    assert books.committable() == {}
    chunk.claim()
    chunk.finish()
    assert books.committable() == {PLACE: 20}


def test_an_end_that_is_reached_while_the_partition_is_given_up_is_not_committed() -> None:
    books = member(end=20)
    first, last = books.take(PLACE, records(0, 9)), books.take(PLACE, records(10, 19))
    assert first is not None
    assert last is not None
    books.book([first])
    first.claim()
    first.finish()
    ended = books.arrived(PLACE, 20)
    books.withhold([PLACE])
    books.book([last])  # on its way to the loop when the stop came: dropped
    assert ended is not None
    ended.close()
    assert books.committable() == {PLACE: 10}


def test_keys_and_headers_weigh_like_values() -> None:
    books = member()
    plain = books.take(PLACE, records(0, 9))
    heavy = books.take(PLACE, records(10, 19, key=b"k" * 50_000, headers=[("trace", b"t" * 100_000)]))
    assert plain is not None
    assert heavy is not None
    assert heavy.size - plain.size >= 10 * 149_999
    assert books.in_flight_bytes == plain.size + heavy.size
