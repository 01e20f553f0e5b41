"""A circuit under any order of writes, answers, probes, operators and waiting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from eventstore.ingest.circuit import Circuit, CircuitPolicy, State, Wanted, Write

pytestmark = pytest.mark.properties

POLICY = CircuitPolicy(refusal=0.5, silence=3, patience=10, slow=4, first_pause=1, longest_pause=8, settled=60)


class Circuits(RuleBasedStateMachine):
    """Keeps its own account of what is under way and when anything was heard."""

    writes = Bundle("writes")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.circuit = Circuit(POLICY)
        self.open_writes: list[Write] = []
        self.heard_at = float("-inf")
        self.refused_at = float("-inf")
        self.flowed_at = float("-inf")
        """A write came back quickly, or there was none."""
        self.not_before = 0.0
        """A probe may not begin earlier."""

    @rule(seconds=st.sampled_from([0.0, 0.4, 0.5, 1.0, 2.9, 3.1, 9.9, 30.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.circuit.state is State.CLOSED)
    @rule(target=writes)
    def begin(self) -> Write:
        if not self.open_writes:
            self.flowed_at = self.now
        write = self.circuit.begin(self.now)
        self.open_writes.append(write)
        return write

    @rule(write=consumes(writes))
    def end(self, write: Write) -> None:
        self.circuit.end(write, self.now)
        self.open_writes.remove(write)
        if self.now - write.started < POLICY.slow:
            self.flowed_at = self.now

    @rule()
    def hear(self) -> None:
        self.circuit.heard(self.now)
        self.heard_at = self.now

    @rule()
    def refuse(self) -> None:
        self.circuit.refused(self.now, "overloaded")
        self.refused_at = self.now

    @rule()
    def check(self) -> None:
        was = self.circuit.state
        oldest = min((write.started for write in self.open_writes), default=None)
        since = self.now if oldest is None else max(oldest, self.heard_at)
        silent = self.now - since >= (POLICY.refusal if self.refused_at > since else POLICY.silence)
        slow = oldest is not None and self.now - oldest >= POLICY.patience
        opened = self.circuit.check(self.now)
        must = was is State.CLOSED and self.circuit.wanted is not Wanted.CLOSED and (silent or slow)
        assert opened == must
        if opened:
            assert self.circuit.state is State.OPEN
            self.not_before = self.now + POLICY.first_pause

    @rule()
    def make_way(self) -> None:
        closed = self.circuit.state is State.CLOSED and self.circuit.wanted is not Wanted.CLOSED
        must = closed and bool(self.open_writes) and self.now - self.flowed_at >= POLICY.patience
        assert self.circuit.make_way(self.now) == must
        if must:
            assert self.circuit.state is State.OPEN
            self.not_before = self.now + POLICY.first_pause

    @rule()
    def probe_if_due(self) -> None:
        if self.circuit.probe_is_due(self.now):
            assert self.now >= self.not_before
            self.circuit.probe()
            assert self.circuit.state is State.HALF_OPEN

    @rule()
    def the_probe_passes(self) -> None:
        was = self.circuit.state
        self.circuit.passed(self.now)
        assert self.circuit.state is (State.CLOSED if was is State.HALF_OPEN else was)
        if was is State.HALF_OPEN:
            self.heard_at = self.flowed_at = self.now

    @rule()
    def the_probe_fails(self) -> None:
        was = self.circuit.state
        self.circuit.failed(self.now, "refused")
        assert self.circuit.state is (State.OPEN if was is State.HALF_OPEN else was)
        if was is State.HALF_OPEN:
            self.not_before = self.now + POLICY.first_pause

    @rule(wanted=st.sampled_from(Wanted))
    def an_operator_wants(self, wanted: Wanted) -> None:
        was = self.circuit.state
        self.circuit.want(wanted, self.now)
        if wanted is Wanted.AUTO:
            assert self.circuit.state is was
            self.not_before = self.now if was is State.OPEN else self.not_before
        elif wanted is Wanted.CLOSED and was is not State.CLOSED:
            self.heard_at = self.flowed_at = self.now

    @invariant()
    def an_operator_is_obeyed(self) -> None:
        if self.circuit.wanted is Wanted.OPEN:
            assert self.circuit.state is State.OPEN
            assert not self.circuit.probe_is_due(self.now + 1e9)
        if self.circuit.wanted is Wanted.CLOSED:
            assert self.circuit.state is State.CLOSED

    @invariant()
    def an_open_circuit_is_tried_again_before_long(self) -> None:
        if self.circuit.state is State.OPEN and self.circuit.wanted is Wanted.AUTO:
            assert self.circuit.probe_is_due(self.now + POLICY.longest_pause)

    @invariant()
    def every_write_is_known(self) -> None:
        assert self.circuit.writes == len(self.open_writes)


TestCircuits = Circuits.TestCase


@given(places=st.integers(2, 8), seconds=st.floats(0.5, 9.5).filter(lambda seconds: abs(seconds - POLICY.slow) > 0.01))
def test_others_are_made_way_for_if_and_only_if_every_write_is_slow(places: int, seconds: float) -> None:
    """A cluster that acknowledges all the while, one chunk after the other, and has every place taken."""
    circuit = Circuit(POLICY)
    under_way = [circuit.begin(0.0)]
    now, turn = 0.0, seconds / places
    while now < 60 and circuit.state is State.CLOSED:
        now += turn
        circuit.heard(now)
        if len(under_way) == places:
            circuit.end(under_way.pop(0), now)
        under_way.append(circuit.begin(now))
        assert not circuit.check(now)
        circuit.make_way(now)
    assert (circuit.state is State.OPEN) == (seconds >= POLICY.slow)
    if circuit.state is State.OPEN:
        assert now <= POLICY.patience + turn
