"""A member's books where the state machine of `tests/properties/test_assignment.py` does not look: ends, and what records weigh."""

import pytest
from confluent_kafka import Message

from eventstore.stream.assignment import Assignments, ConsumerPolicy, Place

pytestmark = pytest.mark.unit

PLACE = Place("events", 0)
OTHER = Place("events", 1)


def records(
    first: int, last: int, *, place: Place = PLACE, key: bytes = b"k", headers: list[tuple[str, bytes]] | None = None
) -> list[Message]:
    """Each published a second after the one before."""
    return [
        Message(
            topic=place.topic, partition=place.partition, offset=offset, key=key, value=b"x", headers=headers,
            timestamp=(1, (offset + 1) * 1_000),
        )
        for offset in range(first, last + 1)
    ]  # fmt: skip


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


def test_chunks_that_wait_are_worked_on_together_up_to_the_size_of_one() -> None:
    books = Assignments(ConsumerPolicy(chunk_records=10), lambda _: None)
    books.add({PLACE: 0, OTHER: 0})
    taken = [books.take(PLACE, records(0, 2)), books.take(OTHER, records(0, 3, place=OTHER)),
             books.take(PLACE, records(3, 5)), books.take(PLACE, records(6, 6))]  # fmt: skip
    first, second, third, fourth = (chunk for chunk in taken if chunk is not None)
    books.book([first, second, third, fourth])
    given = books.next_waiting()
    assert given is first
    haul = given.haul()
    assert haul is not None
    assert list(haul.chunks) == [first, second, third], "an eleventh record would be one too many"
    assert [record.offset() for record in haul.messages] == [0, 1, 2, 0, 1, 2, 3, 3, 4, 5]
    assert haul.published_ms == 1_000
    assert haul.keys() == [b"k"] * 10
    haul.finish()
    assert books.committable() == {PLACE: 6, OTHER: 4}
    assert books.next_waiting() is fourth


def test_what_was_dropped_is_not_worked_on_but_what_waits_behind_it_is() -> None:
    books = member()
    books.add({OTHER: 0})
    gone, kept = books.take(OTHER, records(0, 1, place=OTHER)), books.take(PLACE, records(0, 1))
    assert gone is not None
    assert kept is not None
    books.book([gone, kept])
    given = books.next_waiting()
    books.withhold([OTHER])
    assert given is gone
    haul = given.haul()
    assert haul is not None
    assert list(haul.chunks) == [kept]
    assert gone.haul() is None


def test_keys_and_headers_weigh_like_values() -> None:
    books = member()
    plain = books.take(PLACE, records(0, 9))
    heavy = books.take(PLACE, records(10, 19, key=b"k" * 50_000, headers=[("trace", b"t" * 100_000)]))
    assert plain is not None
    assert heavy is not None
    assert heavy.size - plain.size >= 10 * 149_999
    assert books.in_flight_bytes == plain.size + heavy.size
