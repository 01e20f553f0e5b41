import pytest

from eventstore.ingest.circuit import Circuit, CircuitPolicy, State, Wanted

pytestmark = pytest.mark.unit

POLICY = CircuitPolicy(refusal=0.5, silence=3, patience=10, first_pause=1, longest_pause=8, settled=60)


def opened(at: float = 0.0) -> Circuit:
    circuit = Circuit(POLICY)
    circuit.trip(at, "gone")
    return circuit


def probed(circuit: Circuit, now: float, *, passes: bool) -> None:
    assert circuit.probe_is_due(now)
    circuit.probe()
    if passes:
        circuit.passed(now)
    else:
        circuit.failed(now, "still gone")


def test_silence_opens_it_while_something_is_being_written() -> None:
    circuit = Circuit(POLICY)
    circuit.begin(0.0)
    assert not circuit.check(2.9)
    assert circuit.check(3.0)
    assert circuit.state is State.OPEN
    assert circuit.why == "nothing acknowledged for 3 s"


def test_refusals_open_it_sooner_unless_anything_is_acknowledged_after_them() -> None:
    circuit = Circuit(POLICY)
    circuit.begin(0.0)
    circuit.refused(0.1, "overloaded")
    circuit.heard(0.2)
    assert not circuit.check(0.9)
    circuit.refused(0.3, "no node is connected")
    assert not circuit.check(0.6)
    assert circuit.check(0.75)
    assert circuit.why == "no node is connected"


def test_silence_means_nothing_while_nothing_is_being_written() -> None:
    circuit = Circuit(POLICY)
    circuit.end(circuit.begin(0.0), 0.0)
    assert not circuit.check(1_000.0)
    circuit.begin(1_000.0)
    assert not circuit.check(1_002.9)


def test_a_slow_cluster_opens_it_although_writes_go_through() -> None:
    circuit = Circuit(POLICY)
    circuit.begin(0.0)
    for second in range(1, 10):
        circuit.heard(second)
        assert not circuit.check(second)
    assert circuit.check(10.0)
    assert circuit.why == "a write has waited for 10 s"


def test_nothing_but_slow_writes_make_way_for_others_and_a_quick_one_puts_it_off() -> None:
    circuit = Circuit(POLICY)
    first, second = circuit.begin(0.0), circuit.begin(3.0)
    circuit.end(first, 6.0)
    third = circuit.begin(6.0)
    circuit.end(second, 9.0)
    assert not circuit.make_way(9.5)
    circuit.begin(9.5)
    circuit.end(third, 9.5)  # quick
    assert not circuit.make_way(10.0)
    assert not circuit.make_way(19.4)
    assert circuit.make_way(19.5)
    assert circuit.why == "every write of 10 s took 4 s or longer, and others waited behind them"


def test_an_idle_cluster_makes_no_way() -> None:
    circuit = Circuit(POLICY)
    circuit.end(circuit.begin(0.0), 5.0)
    assert not circuit.make_way(100.0)
    circuit.begin(100.0)
    assert not circuit.make_way(109.9)


def test_a_probe_closes_it() -> None:
    circuit = opened()
    assert not circuit.probe_is_due(0.9)
    probed(circuit, 1.0, passes=True)
    assert circuit.state is State.CLOSED


def test_pauses_between_probes_double_up_to_their_limit() -> None:
    circuit, now, pauses = opened(), 1.0, []
    for _ in range(5):
        probed(circuit, now, passes=False)
        pause = next(tenths / 10 for tenths in range(200) if circuit.probe_is_due(now + tenths / 10))
        pauses.append(pause)
        now += pause
    assert pauses == [2.0, 4.0, 8.0, 8.0, 8.0]


def test_opening_again_soon_after_closing_waits_longer_and_after_a_while_does_not() -> None:
    circuit = opened()
    probed(circuit, 1.0, passes=True)
    circuit.trip(30.0, "gone again")
    assert not circuit.probe_is_due(31.9)
    probed(circuit, 32.0, passes=True)
    circuit.trip(32.0 + POLICY.settled, "gone much later")
    assert circuit.probe_is_due(33.0 + POLICY.settled)


def test_an_operator_who_wants_it_closed_is_told_of_nothing_and_waits() -> None:
    circuit = opened()
    circuit.want(Wanted.CLOSED, 5.0)
    circuit.begin(5.0)
    assert not circuit.check(1_000.0)
    assert not circuit.trip(1_000.0, "gone")
    circuit.want(Wanted.AUTO, 1_000.0)
    assert circuit.check(1_000.0)


def test_an_operator_who_leaves_an_open_one_to_itself_has_it_probed_at_once() -> None:
    circuit = Circuit(POLICY)
    circuit.want(Wanted.OPEN, 0.0)
    assert not circuit.probe_is_due(1_000.0)
    circuit.want(Wanted.AUTO, 1_000.0)
    assert circuit.probe_is_due(1_000.0)


def test_what_a_probe_says_after_an_operator_has_spoken_changes_nothing() -> None:
    circuit = opened()
    circuit.probe()
    circuit.want(Wanted.OPEN, 2.0)
    circuit.passed(3.0)
    assert circuit.state is State.OPEN
