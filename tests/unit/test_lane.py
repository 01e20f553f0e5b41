"""One lane against a node whose every answer, and whose clock, is the test's."""

from collections.abc import Iterator

import pytest

from eventstore.errors import PermanentStoreError, TransientStoreError
from eventstore.events.cells import TableName
from eventstore.store.lane.lane import MOST_ABANDONED, STREAMS
from eventstore.store.lane.window import Window
from tests.builders import uid_of
from tests.cql_values import integer, short, text
from tests.lane_wire import INVALID, OVERLOADED, TIMEOUT, UNPREPARED, LaneOnWire, answer, refusal

pytestmark = pytest.mark.unit


@pytest.fixture
def on_wire() -> Iterator[LaneOnWire]:
    made = LaneOnWire()
    yield made
    made.close()


@pytest.fixture
def narrow() -> Iterator[LaneOnWire]:
    """A lane that may have two batches on their way."""
    made = LaneOnWire(in_flight=2)
    yield made
    made.close()


def test_all_that_the_window_allows_goes_out_in_one_write(on_wire: LaneOnWire) -> None:
    on_wire.write(on_wire.batches(100))
    assert (len(on_wire.sent()), on_wire.wire.writes) == (64, 1)


def test_no_more_is_on_its_way_than_allowed(narrow: LaneOnWire) -> None:
    batches = narrow.batches(5)
    ticket = narrow.write(batches)
    order = []
    while frames := narrow.sent():
        assert len(frames) <= 2
        order += [frame.uid for frame in frames]
        narrow.hear(*(answer(frame.stream) for frame in frames))
    assert order == [uid_of(batch[0]) for batch in batches]
    assert (ticket.done.done(), ticket.failures) == (True, [])


def test_batches_that_wait_go_out_together(on_wire: LaneOnWire) -> None:
    on_wire.write(on_wire.batches(100))
    frames = on_wire.sent()
    for answered in range(7):
        on_wire.hear(answer(frames[answered].stream))
        assert on_wire.sent() == []
    on_wire.hear(answer(frames[7].stream))
    assert len(on_wire.sent()) >= 8


def test_while_batches_wait_acknowledgements_are_collected_before_they_are_read(on_wire: LaneOnWire) -> None:
    on_wire.write(on_wire.batches(100))
    frames = on_wire.sent()
    on_wire.hear(answer(frames[0].stream))
    assert not on_wire.wire.is_reading()
    on_wire.be_quiet()
    assert on_wire.wire.is_reading()
    on_wire.hear(*(answer(frame.stream) for frame in frames[1:]))
    on_wire.be_quiet()
    on_wire.hear(*(answer(frame.stream) for frame in on_wire.sent()))
    assert on_wire.wire.is_reading(), "nothing waits any more: each acknowledgement is read as it comes"


def test_a_lane_that_is_lost_while_it_collects_is_left_alone(on_wire: LaneOnWire) -> None:
    ticket = on_wire.write(on_wire.batches(100))
    on_wire.hear(answer(on_wire.sent()[0].stream))
    on_wire.lane.connection_lost(None)
    on_wire.be_quiet()
    assert (not on_wire.wire.is_reading(), len(ticket.failures)) == (True, 99)


def test_a_batch_that_the_window_has_room_for_does_not_wait(on_wire: LaneOnWire) -> None:
    for _ in range(50):
        on_wire.write(on_wire.batches(1))
        assert len(on_wire.sent()) == 1


def test_answers_out_of_order_and_byte_by_byte_find_their_batches(on_wire: LaneOnWire) -> None:
    batches = on_wire.batches(3, rows=2)
    ticket = on_wire.write(batches)
    first, second, third = on_wire.sent()
    for byte in answer(third.stream) + refusal(first.stream, INVALID) + answer(second.stream):
        on_wire.hear(bytes([byte]))
    (failure,) = ticket.failures
    assert failure.batch is batches[0]
    assert isinstance(failure.error, PermanentStoreError)


def test_an_overloaded_node_gets_half_as_much_and_then_more_again(on_wire: LaneOnWire) -> None:
    on_wire.write(on_wire.batches(1_000))
    frames = on_wire.sent()
    on_wire.hear(*(refusal(frame.stream, OVERLOADED) for frame in frames))
    fewer = on_wire.sent()
    assert len(fewer) == len(frames) // 2  # not halved once for each of them
    on_wire.now += 0.01
    on_wire.hear(*(answer(frame.stream) for frame in fewer))
    assert len(on_wire.sent()) == len(fewer) + 1  # one more a round trip


def test_the_window_stays_between_its_bounds() -> None:
    window = Window(most=100.0)
    for at in range(20):
        window.shrink(at, at)
    assert window.size == 4.0
    for _ in range(10_000):
        window.grow(4)
    assert window.size == 100.0
    tiny = Window(most=1.0)
    tiny.shrink(1, 1)
    assert tiny.size == 1.0


def test_a_window_that_nothing_waits_for_does_not_grow(on_wire: LaneOnWire) -> None:
    for _ in range(10):
        on_wire.write(on_wire.batches(2))
        on_wire.hear(*(answer(frame.stream) for frame in on_wire.sent()))
    assert on_wire.lane.window.size == 64.0


def test_a_late_answer_does_not_reach_the_stream_s_next_batch(on_wire: LaneOnWire) -> None:
    late = on_wire.write(on_wire.batches(1))
    (given_up,) = on_wire.sent()
    on_wire.wait(1.0)
    on_wire.write(on_wire.batches(1))
    (prompt,) = on_wire.sent()
    on_wire.hear(answer(prompt.stream))  # it answers others
    on_wire.wait(TIMEOUT - 1.0)
    assert [type(failure.error) for failure in late.failures] == [TransientStoreError]
    later = on_wire.write(on_wire.batches(STREAMS))
    assert given_up.stream not in {frame.stream for frame in on_wire.sent()}
    on_wire.hear(answer(given_up.stream))
    assert later.left == STREAMS
    assert on_wire.told.losses == []


def test_a_node_that_says_nothing_is_given_up_whole(on_wire: LaneOnWire) -> None:
    ticket = on_wire.write(on_wire.batches(200))
    on_wire.wait(TIMEOUT - 0.1)
    assert not ticket.done.done()
    on_wire.wait(0.1)
    assert len(ticket.failures) == 200
    assert all(isinstance(failure.error, TransientStoreError) for failure in ticket.failures)
    assert on_wire.wire.aborted
    assert ["did not answer within 4 s" in str(error) for error in on_wire.told.losses] == [True]


def test_a_node_that_was_asked_nothing_is_not_silent(on_wire: LaneOnWire) -> None:
    on_wire.wait(10 * TIMEOUT)
    on_wire.write(on_wire.batches(1))
    on_wire.wait(TIMEOUT - 0.1)
    assert on_wire.told.losses == []


def test_a_node_that_leaves_too_many_answers_owing_is_given_up(on_wire: LaneOnWire) -> None:
    forgotten = 0
    while not on_wire.told.losses:
        on_wire.write(on_wire.batches(4))
        *lost, heard = on_wire.sent()
        forgotten += len(lost)
        on_wire.now += TIMEOUT / 2
        on_wire.hear(answer(heard.stream))
        on_wire.wait(TIMEOUT / 2)
        assert forgotten <= MOST_ABANDONED + 4
    assert forgotten >= MOST_ABANDONED


def test_a_batch_that_waits_too_long_fails_unsent(narrow: LaneOnWire) -> None:
    ticket = narrow.write(narrow.batches(4))
    first, second = narrow.sent()
    narrow.wait(TIMEOUT - 0.5)
    narrow.hear(answer(first.stream))
    (third,) = narrow.sent()
    narrow.wait(0.5)  # the second's answer and the fourth's turn are overdue
    assert [str(failure.error).split(": ")[1] for failure in ticket.failures] == [
        "127.0.0.1:9042 did not answer within 4 s",
        "127.0.0.1:9042 took no more batches for 4 s",
    ]
    assert [uid_of(failure.batch[0]) for failure in ticket.failures] == [second.uid, "u3"]
    narrow.hear(answer(third.stream))
    assert ticket.done.done()


def test_forgotten_statements_are_prepared_once_and_all_batches_sent_again(on_wire: LaneOnWire) -> None:
    batches = on_wire.batches(30)
    ticket = on_wire.write(batches)
    frames = on_wire.sent()
    on_wire.hear(*(refusal(frame.stream, UNPREPARED) for frame in frames[:20]))
    assert (on_wire.told.unprepared_times, on_wire.sent()) == (1, [])
    on_wire.now += 0.01
    on_wire.prepare()
    again = on_wire.sent()
    assert len(again) == 20
    on_wire.hear(*(refusal(frame.stream, UNPREPARED) for frame in frames[20:]))  # sent before it was prepared again
    assert on_wire.told.unprepared_times == 1
    again += on_wire.sent()
    assert {frame.uid for frame in again} == {uid_of(batch[0]) for batch in batches}
    on_wire.hear(*(answer(frame.stream) for frame in again))
    assert (ticket.done.done(), ticket.failures) == (True, [])


def test_a_node_that_forgets_for_ever_is_transient_in_the_end(on_wire: LaneOnWire) -> None:
    ticket = on_wire.write(on_wire.batches(1))
    for _ in range(10):
        for frame in on_wire.sent():
            on_wire.now += TIMEOUT / 5
            on_wire.hear(refusal(frame.stream, UNPREPARED))
            on_wire.prepare()
    assert [type(failure.error) for failure in ticket.failures] == [TransientStoreError]


def test_nothing_is_written_while_the_socket_is_full(on_wire: LaneOnWire) -> None:
    on_wire.lane.pause_writing()
    on_wire.write(on_wire.batches(2))
    assert on_wire.sent() == []
    on_wire.lane.resume_writing()
    assert len(on_wire.sent()) == 2


def test_a_connection_lost_in_mid_frame_fails_every_batch_once(on_wire: LaneOnWire) -> None:
    batches = on_wire.batches(100)
    ticket = on_wire.write(batches)
    acknowledged, half, *_ = on_wire.sent()
    on_wire.hear(answer(acknowledged.stream), answer(half.stream)[:11])
    on_wire.lane.connection_lost(ConnectionResetError("reset by peer"))
    assert ticket.done.done()
    assert [failure.batch for failure in ticket.failures] == batches[1:]
    assert "lost the connection to 127.0.0.1:9042: reset by peer" in str(ticket.failures[0].error)


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x84\x00\x00\x00\x08\xff\xff\xff\xff"])
def test_a_peer_that_speaks_no_cql_is_a_lost_connection(on_wire: LaneOnWire, garbage: bytes) -> None:
    ticket = on_wire.write(on_wire.batches(1))
    on_wire.hear(garbage)
    assert [type(failure.error) for failure in ticket.failures] == [TransientStoreError]
    assert "expected an answer of CQL protocol v4" in str(on_wire.told.losses[0])


def test_an_error_that_nobody_can_read_is_a_lost_connection(on_wire: LaneOnWire) -> None:
    ticket = on_wire.write(on_wire.batches(3))
    first, second, _ = on_wire.sent()
    on_wire.hear(answer(first.stream), answer(second.stream, opcode=0, body=integer(INVALID) + short(9) + b"\xff"))
    assert [type(failure.error) for failure in ticket.failures] == [TransientStoreError] * 2
    assert "expected an error of CQL protocol v4" in str(on_wire.told.losses[0])


def test_a_bug_of_ours_ends_the_write_loudly(on_wire: LaneOnWire, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("our own bug")

    monkeypatch.setattr(type(on_wire.told), "learn", broken)
    ticket = on_wire.write(on_wire.batches(3))
    first, second, _ = on_wire.sent()
    payload = short(1) + text("tablets-routing-v1") + integer(6) + b"tablet"
    on_wire.hear(answer(first.stream), answer(second.stream, body=payload + integer(1), flags=0x04))
    assert ticket.done.exception() in on_wire.told.bugs
    assert on_wire.wire.aborted


def test_a_caller_that_left_does_no_harm(on_wire: LaneOnWire) -> None:
    ticket = on_wire.write(on_wire.batches(1))
    ticket.done.cancel()
    on_wire.hear(*(answer(frame.stream) for frame in on_wire.sent()))
    assert on_wire.told.bugs == []


def test_warnings_and_traces_are_read_past_and_tablets_heard(on_wire: LaneOnWire) -> None:
    ticket = on_wire.write(on_wire.batches(2))
    warned, misrouted = on_wire.sent()
    trace, warnings = bytes(16), short(1) + text("batch too large")
    payload = short(1) + text("tablets-routing-v1") + integer(6) + b"tablet"
    on_wire.hear(answer(warned.stream, body=trace + warnings + integer(1), flags=0x02 | 0x08))
    on_wire.hear(answer(misrouted.stream, body=payload + integer(1), flags=0x04))
    assert (ticket.done.done(), ticket.failures, on_wire.told.tablets) == (True, [], [(TableName.EVENTS, b"tablet")])
