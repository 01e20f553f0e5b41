"""Rejects survive the dead-letter topic and any number of replays, whatever they hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.events import Coordinates, Reason, Rejected
from eventstore.stream.dead_letter import DeadLetter, Marker, Stranger, Where, read
from eventstore.stream.dead_letters import Reject, dead_letter_headers
from eventstore.stream.headers import DEAD_LETTER, MAX_DETAIL_BYTES, ORIGIN, REPLAYED, origin, parse_coordinates

pytestmark = pytest.mark.properties

NOW = 1_790_000_000.0
names = st.text(max_size=12) | st.sampled_from([*DEAD_LETTER, ORIGIN, REPLAYED])
headers = st.lists(st.tuples(names, st.none() | st.binary(max_size=30)), max_size=12)
coordinates = st.builds(
    Coordinates,
    topic=st.from_regex(r"[a-zA-Z0-9._-]{1,30}", fullmatch=True),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
)
any_text = st.text(st.characters(exclude_categories=()), max_size=2_000)
rejects = st.builds(
    Reject,
    rejected=st.builds(Rejected, reason=st.sampled_from(Reason), detail=any_text),
    coordinates=coordinates,
    key=st.none() | st.binary(),
    value=st.none() | st.binary(),
    headers=headers,
    timestamp_ms=st.integers(-1, 2**62),
)


def as_read(reject: Reject) -> DeadLetter:
    made = dead_letter_headers(reject, NOW)
    for _, value in made[len(reject.headers) :]:
        assert value is not None
        value.decode()
    found = read(0, 0, reject.key, reject.value, made)
    assert isinstance(found, DeadLetter)
    return found


@given(rejects)
def test_what_was_rejected_is_what_is_read(reject: Reject) -> None:
    letter = as_read(reject)
    assert (letter.key, letter.value, letter.headers) == (reject.key, reject.value, reject.headers)
    assert (letter.reason, letter.source) == (reject.rejected.reason, reject.coordinates)
    assert letter.timestamp_ms == reject.timestamp_ms
    assert len(letter.detail.encode()) <= MAX_DETAIL_BYTES
    letter.tenant.encode()


@given(rejects, st.lists(coordinates, min_size=1, max_size=4))
def test_the_first_place_survives_any_number_of_rejections(reject: Reject, later: list[Coordinates]) -> None:
    first = origin(reject.headers) or reject.coordinates
    replayed = as_read(reject).headers_for_replay()
    for place in later:
        again = Reject(reject.rejected, place, reject.key, reject.value, replayed, reject.timestamp_ms)
        assert as_read(again).headers_for_replay() == replayed
    assert origin(replayed) == first


@given(coordinates)
def test_coordinates_are_read_as_they_are_written(place: Coordinates) -> None:
    assert parse_coordinates(str(place)) == place


@given(headers | st.lists(st.none() | st.binary(max_size=30), min_size=8, max_size=8).map(
    lambda values: list(zip(DEAD_LETTER, values, strict=True))
), st.none() | st.binary())  # fmt: skip
def test_whatever_stands_in_the_topic_can_be_read(found: list[tuple[str, bytes | None]], value: bytes | None) -> None:
    record = read(3, 9, None, value, found)
    assert isinstance(record, DeadLetter | Marker | Stranger)
    if isinstance(record, DeadLetter):
        assert Where([]).matches(record)


@given(st.integers(0, 100), coordinates, st.lists(st.integers(0, 2**63 - 1)))
def test_a_marker_is_read_as_it_is_written(partition: int, place: Coordinates, offsets: list[int]) -> None:
    marker = Marker(partition, place.topic, offsets)
    assert read(partition, 1, None, marker.value(), marker.headers()) == marker
