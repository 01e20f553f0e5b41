"""What is on record of replays while several people change it at a time."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec
import pytest

from eventstore.config import Settings
from eventstore.errors import ConfigurationError, RefusedError, TransientKafkaError
from eventstore.replay.plan import Plan, progress, replay_group
from eventstore.replay.ranges import Range
from eventstore.replay.scope import Scope
from eventstore.replay.state import Replay, Replays, Status
from tests.builders import NOW_MS
from workers import coordinator
from workers.coordinator import Coordinator, ended

pytestmark = pytest.mark.unit

T = TypeVar("T")


class InMemory:
    """A table; `before_put` is what somebody else does at that moment."""

    topic = "events.replays"

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}
        self.before_put: Callable[[], object] = lambda: None

    def read(self) -> dict[str, bytes]:
        return dict(self.entries)

    def put(self, key: str, value: bytes | None) -> None:
        others, self.before_put = self.before_put, lambda: None
        others()
        if value is None:
            self.entries.pop(key, None)
        else:
            self.entries[key] = value

    def decoded(self, _key: str, value: bytes, kind: type[T]) -> T:
        return msgspec.json.decode(value, type=kind)


def plan(name: str = "r1", start: int = 0) -> Plan:
    return Plan(name, "events", replay_group("live", name), {0: Range(start, 100)}, Scope(), ("c30",), NOW_MS)


def replay(name: str = "r1", start: int = 0, status: Status = Status.RUNNING) -> Replay:
    return Replay(plan(name, start), status, NOW_MS)


@pytest.fixture
def table() -> InMemory:
    return InMemory()


def test_a_replay_begins_when_nobody_does_the_same(table: InMemory) -> None:
    replays = Replays(table)
    replays.begin(replay("done", status=Status.DONE), beside_others=False)
    replays.begin(replay(), beside_others=False)
    assert [each.id for each in replays.running()] == ["r1"]


def test_of_two_replays_begun_at_the_same_moment_only_one_stays(table: InMemory) -> None:
    table.before_put = lambda: Replays(table).begin(replay("other", 50), beside_others=False)
    with pytest.raises(RefusedError, match="replay other") as refusal:
        Replays(table).begin(replay(), beside_others=False)
    assert "\n" not in str(refusal.value)
    assert [each.id for each in Replays(table).running()] == ["other"]


def test_two_replays_run_side_by_side_if_that_is_wanted(table: InMemory) -> None:
    Replays(table).begin(replay("other", 50), beside_others=False)
    Replays(table).begin(replay(), beside_others=True)
    assert len(Replays(table).running()) == 2


def test_a_status_is_judged_by_what_others_have_noted(table: InMemory) -> None:
    replays = Replays(table)
    replays.begin(replay(), beside_others=False)
    Replays(table).become("r1", Status.CANCELLED, NOW_MS)
    with pytest.raises(RefusedError, match="it is cancelled"):
        replays.become("r1", Status.RUNNING, NOW_MS)
    with pytest.raises(ConfigurationError, match="found none"):
        replays.become("r2", Status.RUNNING, NOW_MS)


@pytest.mark.parametrize(
    ("noted", "at", "outcome", "on_record"),
    [
        (Status.RUNNING, 100, Status.DONE, Status.DONE),
        (Status.PAUSED, 100, Status.DONE, Status.DONE),
        (Status.CANCELLED, 100, Status.CANCELLED, Status.CANCELLED),
        (Status.RUNNING, 50, Status.RUNNING, Status.RUNNING),
    ],
)
def test_a_run_that_reached_the_end_is_done_unless_it_was_cancelled(
    table: InMemory, noted: Status, at: int, outcome: Status, on_record: Status
) -> None:
    replays = Replays(table)
    replays.begin(replay(status=noted), beside_others=True)
    assert ended(replays, progress(plan(), {0: at}), plan(), Status.RUNNING) is outcome
    assert replays.get("r1").status is on_record


class Standing:
    """A group that stands where it is told, or brokers that do not answer."""

    def __init__(self, *answers: int | None) -> None:
        self._answers: Iterator[int | None] = iter(answers)

    def committed(self, _group: str) -> dict[int, int]:
        if (answer := next(self._answers)) is None:
            raise TransientKafkaError("no broker answers")
        return {0: answer}


@pytest.fixture
def follower(monkeypatch: pytest.MonkeyPatch) -> Coordinator:
    monkeypatch.setattr(coordinator, "LOOK_SECONDS", 0.0)
    return Coordinator(Settings(), plan(), 1, lambda _: None)


def test_brokers_that_are_away_for_a_while_end_no_run(table: InMemory, follower: Coordinator) -> None:
    replays = Replays(table)
    replays.begin(replay(), beside_others=False)
    assert follower.follow(Standing(0, None, None, 50, None, 100), replays) is Status.DONE


def test_brokers_that_stay_away_end_it(table: InMemory, follower: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "PATIENCE_SECONDS", -1.0)
    with pytest.raises(TransientKafkaError):
        follower.follow(Standing(None), Replays(table))


def test_a_run_ends_as_somebody_wants_it(table: InMemory, follower: Coordinator) -> None:
    replays = Replays(table)
    replays.begin(replay(), beside_others=False)
    replays.become("r1", Status.PAUSED, NOW_MS)
    assert follower.follow(Standing(0, 0), replays) is Status.PAUSED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_here_and_leaves_it_to_be_resumed(
    table: InMemory, follower: Coordinator, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    with coordinator.Signals(follower.ask_to_stop):
        os.kill(os.getpid(), number)
        assert follower.follow(Standing(), Replays(table)) is Status.RUNNING
    assert signal.getsignal(number) is before
