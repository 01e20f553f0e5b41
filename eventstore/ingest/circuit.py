"""When to stop waiting for a cluster, and when to try it again. Pure: `now` is passed in, in seconds of any one clock.

A circuit is **closed** while writes go through. It **opens** when a cluster has acknowledged nothing for too long although
something is being written (soon if it refuses, later if it says nothing), or has kept one write waiting for too long although
others went through. It also opens to make way for other clusters, when this one lets nothing but slow writes through: chunks
that wait for it take the places of others. While it is open nobody waits: records are diverted. After a pause it is **half-open**: one probe is under way, and its outcome closes the
circuit, or opens it for a longer pause.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum


class State(Enum):
    """Values are those of the gauge `eventstore_circuit_state`."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Wanted(StrEnum):
    """What an operator wants of a circuit."""

    AUTO = "auto"
    OPEN = "open"
    """Divert, whatever the cluster does."""
    CLOSED = "closed"
    """Wait for the cluster, however long it takes."""


@dataclass(frozen=True, slots=True)
class CircuitPolicy:
    """All in seconds."""

    refusal: float = 0.5
    """Nothing acknowledged for so long, and something written has come back refused: open."""
    silence: float = 3.0
    """Nothing acknowledged for so long, although something is being written: open."""
    patience: float = 10.0
    """One write waiting for so long, although others are acknowledged: open."""
    slow: float = 4.0
    """A write that takes so long is slow. Nothing but slow ones for `patience`: open, if other clusters' writes wait behind them."""
    first_pause: float = 1.0
    longest_pause: float = 10.0
    """From opening to the probe; doubled by every failed probe, and by opening again soon after closing."""
    settled: float = 60.0
    """Closed for so long, the next opening starts with the first pause again."""


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """One write that is under way."""

    started: float


class Circuit:
    """One cluster's. Whoever writes calls `begin`, `heard` and `end`; somebody calls `check` now and then."""

    def __init__(self, policy: CircuitPolicy) -> None:
        self.policy = policy
        self.state = State.CLOSED
        self.wanted = Wanted.AUTO
        self.why = ""
        """What opened it last."""
        self._writes: set[Write] = set()
        self._heard = float("-inf")
        """When anything was acknowledged last."""
        self._refused = float("-inf")
        self._refusal = ""
        """When everything of a write was refused last, and why."""
        self._flowed = float("-inf")
        """When a write was quick last, or there was none."""
        self._closed_at = float("-inf")
        self._pause = 0.0
        self._probe_at: float | None = None

    @property
    def writes(self) -> int:
        """How many are under way."""
        return len(self._writes)

    def begin(self, now: float) -> Write:
        if not self._writes:
            self._flowed = now
        write = Write(now)
        self._writes.add(write)
        return write

    def heard(self, now: float) -> None:
        """The cluster has acknowledged something."""
        self._heard = now

    def refused(self, now: float, why: str) -> None:
        """All of a write came back unacknowledged."""
        self._refused, self._refusal = now, why

    def end(self, write: Write, now: float) -> None:
        self._writes.discard(write)
        if now - write.started < self.policy.slow:
            self._flowed = now

    def check(self, now: float) -> bool:
        """Open if the policy says so; whether it has."""
        if self.state is not State.CLOSED or self.wanted is Wanted.CLOSED or not self._writes:
            return False
        oldest = min(write.started for write in self._writes)
        since = max(oldest, self._heard)
        if self._refused > since and now - since >= self.policy.refusal:
            return self.trip(now, self._refusal)
        if now - since >= self.policy.silence:
            return self.trip(now, f"nothing acknowledged for {self.policy.silence:g} s")
        if now - oldest >= self.policy.patience:
            return self.trip(now, f"a write has waited for {self.policy.patience:g} s")
        return False

    def make_way(self, now: float) -> bool:
        """Open if other clusters' writes have waited for too long behind slow ones to this; whether it has."""
        policy = self.policy
        if not self._writes or now - self._flowed < policy.patience:
            return False
        return self.trip(
            now, f"every write of {policy.patience:g} s took {policy.slow:g} s or longer, and others waited behind them"
        )

    def trip(self, now: float, why: str) -> bool:
        """Open, if it is closed and an operator does not want it so; whether it has."""
        if self.state is not State.CLOSED or self.wanted is Wanted.CLOSED:
            return False
        soon = now - self._closed_at < self.policy.settled
        self._pause = self._longer() if soon else self.policy.first_pause
        self._open(now, why)
        return True

    def probe_is_due(self, now: float) -> bool:
        return self.state is State.OPEN and self._probe_at is not None and now >= self._probe_at

    def probe(self) -> None:
        """A probe begins."""
        if self.state is State.OPEN and self._probe_at is not None:
            self.state, self._probe_at = State.HALF_OPEN, None

    def passed(self, now: float) -> None:
        """The probe went through."""
        if self.state is State.HALF_OPEN:
            self._close(now)

    def failed(self, now: float, why: str) -> None:
        """The probe did not go through."""
        if self.state is State.HALF_OPEN:
            self._pause = self._longer()
            self._open(now, why)

    def want(self, wanted: Wanted, now: float) -> None:
        """Follow an operator. `AUTO` leaves an open circuit open until a probe has gone through."""
        self.wanted = wanted
        if wanted is Wanted.OPEN:
            self.state, self._probe_at, self.why = State.OPEN, None, "an operator opened it"
        elif wanted is Wanted.CLOSED and self.state is not State.CLOSED:
            self._close(now)
        elif wanted is Wanted.AUTO and self.state is State.OPEN:
            self._probe_at, self._pause = now, self.policy.first_pause

    def _open(self, now: float, why: str) -> None:
        self.state, self.why, self._probe_at = State.OPEN, why, now + self._pause

    def _close(self, now: float) -> None:
        self.state, self._closed_at, self._probe_at = State.CLOSED, now, None
        self._heard = self._flowed = now  # writes that wait from before get their time anew

    def _longer(self) -> float:
        return min(self.policy.longest_pause, max(self.policy.first_pause, 2 * self._pause))
