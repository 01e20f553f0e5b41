"""The ledger as a state machine: whatever the interleaving, a commit never passes an unfinished record."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eventstore.stream.ledger import Entry, Ledger

pytestmark = pytest.mark.properties


class LedgerMachine(RuleBasedStateMachine):
    """A partition that is assigned again and again, with commits in flight that succeed, fail, or answer late."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.next_offset = 0
        self.open: list[Entry] = []
        self.late: list[tuple[Ledger, Entry]] = []
        self.in_flight: list[int] = []
        self.unfinished: set[int] = set()
        self.committed = 0
        """What Kafka holds."""

    @rule(gap=st.integers(0, 3), length=st.integers(1, 5))
    def fetch(self, gap: int, length: int) -> None:
        first = self.next_offset + gap
        self.next_offset = first + length
        self.open.append(self.ledger.open(first, self.next_offset - 1))
        self.unfinished.update(range(first, self.next_offset))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        entry = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.ledger.finish(entry)
        self.unfinished.difference_update(range(entry.first, entry.last + 1))

    @rule()
    def send_commit(self) -> None:
        if (offset := self.ledger.committable()) is not None:
            self.in_flight.append(offset)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def commit_succeeds(self, data: st.DataObject) -> None:
        offset = self.in_flight.pop(data.draw(st.integers(0, len(self.in_flight) - 1)))
        self.committed = max(self.committed, offset)
        self.ledger.committed(offset)

    @precondition(lambda self: self.in_flight)
    @rule()
    def commit_fails(self) -> None:
        self.in_flight.pop(0)

    @rule()
    def assign_again(self) -> None:
        """Revoked and assigned: reading goes on at what Kafka holds; what is open finishes late, into the old book."""
        self.late += [(self.ledger, entry) for entry in self.open]
        self.open.clear()
        self.in_flight.clear()
        self.ledger = Ledger()
        self.next_offset = self.committed
        self.unfinished = {offset for offset in self.unfinished if offset < self.committed}

    @precondition(lambda self: self.late)
    @rule()
    def finish_late(self) -> None:
        ledger, entry = self.late.pop()
        ledger.finish(entry)

    @invariant()
    def never_past_a_hole(self) -> None:
        offset = self.ledger.committable()
        assert offset is None or not any(unfinished < offset for unfinished in self.unfinished)

    @invariant()
    def kafka_never_past_a_hole(self) -> None:
        assert not any(unfinished < self.committed for unfinished in self.unfinished)

    def teardown(self) -> None:
        """When all is finished, all is committable: nothing stays behind for ever."""
        for entry in self.open:
            self.ledger.finish(entry)
        if self.open:
            assert self.ledger.finished_to == self.next_offset


TestLedgerMachine = LedgerMachine.TestCase
