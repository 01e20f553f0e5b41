"""Whatever a node does, and whenever: each batch ends once, none is called stored that was not, no stream serves two."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventstore.events.cells import Batch
from eventstore.store.lane.ticket import Ticket
from tests.builders import uid_of
from tests.lane_wire import INVALID, OVERLOADED, TIMEOUT, UNPREPARED, Frame, LaneOnWire, answer, refusal

pytestmark = pytest.mark.properties

LONGEST_WAIT = TIMEOUT / 2
"""Seconds between two looks at the deadlines."""


class LaneMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.on_wire = LaneOnWire(in_flight=8)
        self.owed: list[Frame] = []
        """What the node has got and not answered."""
        self.stored: set[str] = set()
        self.calls: list[tuple[Ticket, list[Batch]]] = []
        self.unsent = b""
        """The rest of an answer that the network has cut."""

    @property
    def lost(self) -> bool:
        return bool(self.on_wire.told.losses)

    def take(self) -> None:
        for frame in self.on_wire.sent():
            assert frame.stream not in {each.stream for each in self.owed}, "a stream serves two batches"
            self.owed.append(frame)

    def say(self, answers: bytes, cut: int) -> None:
        answers = self.unsent + answers
        whole = max(0, len(answers) - cut)
        self.unsent = answers[whole:]
        self.on_wire.hear(answers[:whole])
        self.take()

    def owed_one(self, which: int) -> Frame:
        return self.owed.pop(which % len(self.owed))

    @precondition(lambda self: not self.lost)
    @rule(number=st.integers(1, 12), rows=st.integers(1, 2))
    def write(self, number: int, rows: int) -> None:
        batches = self.on_wire.batches(number, rows)
        self.calls.append((self.on_wire.write(batches), batches))
        self.take()

    @precondition(lambda self: self.owed and not self.lost)
    @rule(which=st.lists(st.integers(0, 99), min_size=1, max_size=8), cut=st.sampled_from([0, 0, 1, 5, 12]))
    def acknowledge(self, which: list[int], cut: int) -> None:
        answers = b""
        for each in which[: len(self.owed)]:
            frame = self.owed_one(each)
            self.stored.add(frame.uid)
            answers += answer(frame.stream)
        self.say(answers, cut)

    @precondition(lambda self: self.owed and not self.lost)
    @rule(
        which=st.integers(0, 99), code=st.sampled_from([OVERLOADED, INVALID, UNPREPARED]), cut=st.sampled_from([0, 3])
    )
    def refuse(self, which: int, code: int, cut: int) -> None:
        self.say(refusal(self.owed_one(which).stream, code), cut)

    @precondition(lambda self: self.on_wire.told.unprepared_times and not self.lost)
    @rule()
    def prepare(self) -> None:
        self.on_wire.prepare()
        self.take()

    @rule(seconds=st.sampled_from([0.0, 0.1, TIMEOUT / 4, LONGEST_WAIT]))
    def time_goes_by(self, seconds: float) -> None:
        self.on_wire.wait(seconds)
        self.take()
        for ticket, _ in self.calls:
            assert ticket.done.done() or self.on_wire.now - ticket.started < 2 * TIMEOUT + LONGEST_WAIT

    @precondition(lambda self: len(self.owed) > 1 and not self.lost)
    @rule()
    def only_the_newest_is_answered_in_time(self) -> None:
        """The others are late then, and yet the node is not silent."""
        self.on_wire.now += LONGEST_WAIT
        self.acknowledge([len(self.owed) - 1], 0)
        self.time_goes_by(LONGEST_WAIT)

    @rule()
    def the_socket_fills(self) -> None:
        self.on_wire.lane.pause_writing()

    @rule()
    def the_socket_empties(self) -> None:
        self.on_wire.lane.resume_writing()
        self.take()

    @precondition(lambda self: not self.lost)
    @rule(how=st.integers(0, 19))
    def the_connection_breaks(self, how: int) -> None:
        """Seldom, or no schedule would be long."""
        if how == 18 and not self.unsent:
            self.on_wire.hear(b"HTTP/1.1 400 Bad Request")
        elif how >= 18:
            self.on_wire.lane.connection_lost(None)

    @invariant()
    def no_more_on_its_way_than_allowed(self) -> None:
        assert len(self.on_wire.lane._sent) <= 8

    @invariant()
    def each_batch_ends_at_most_once(self) -> None:
        for ticket, batches in self.calls:
            failed = Counter(id(failure.batch) for failure in ticket.failures)
            assert set(failed) <= set(map(id, batches))
            assert set(failed.values()) <= {1}
            assert ticket.left >= 0
            if ticket.done.done():
                assert {uid_of(batch[0]) for batch in batches if id(batch) not in failed} <= self.stored

    @invariant()
    def a_lost_lane_owes_nothing(self) -> None:
        if self.lost:
            assert all(ticket.done.done() for ticket, _ in self.calls)
            assert len(self.on_wire.told.losses) == 1

    @invariant()
    def nothing_unexpected_happened(self) -> None:
        assert self.on_wire.told.bugs == []

    def teardown(self) -> None:
        self.on_wire.close()
        assert all(ticket.done.done() and ticket.left == 0 for ticket, _ in self.calls)
        self.each_batch_ends_at_most_once()


TestLane: Any = LaneMachine.TestCase
TestLane.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
