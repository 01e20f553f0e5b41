"""Whether a worker is alive, and whether it is ready: rules over what its loop, its pump and its hauls say of themselves.

*Alive* means that a restart would not help: a worker that stands still is not alive. Trouble of others is no reason to
restart: a cluster that is away has an open circuit, and its events are diverted. *Ready* means that it takes its share.

Pure: `now` is passed in, in seconds of the clock that the vitals were taken by.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Stage(Enum):
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Vitals:
    """What is known of a worker at one moment. A `..._at` is when something happened last."""

    stage: Stage
    loop_at: float
    """The event loop turned."""
    pump_at: float | None = None
    """The Kafka pump turned; None before it runs."""
    outside_since: float | None = None
    """Since when the consumer group gives it no assignment; None while it does, or before it was asked."""
    silent_since: float | None = None
    """Since when records have come to its partitions, with room for them, and none was handed to it; None while all is well."""
    partitions: int = 0
    oldest_haul_at: float | None = None
    """The oldest haul that is still worked on was begun; None if there is none."""
    circuits: Mapping[str, str] | None = None
    """The state of each cluster's circuit; None before the registry is in force."""


@dataclass(frozen=True, slots=True)
class Limits:
    """All in seconds."""

    stall: float = 60.0
    """The loop or the pump may take so long for one turn, and records so long from the brokers to the pump."""
    haul: float = 300.0
    """A haul may be worked on for so long: longer than any write, diversion or dead letter is tried."""
    assignment: float = 300.0
    """The group may give no assignment for so long."""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    passes: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """A probe's answer: it passes if all its checks do."""

    checks: tuple[Check, ...]

    @property
    def passes(self) -> bool:
        return all(check.passes for check in self.checks)

    @property
    def document(self) -> dict[str, object]:
        return {
            "status": "pass" if self.passes else "fail",
            "checks": {check.name: {"pass": check.passes, "detail": check.detail} for check in self.checks},
        }


def liveness(vitals: Vitals, now: float, limits: Limits) -> Report:
    """Does it still move? No is a reason to restart it."""
    return Report((
        recent("loop", "turned", vitals.loop_at, now, limits.stall),
        recent("pump", "turned", vitals.pump_at, now, limits.stall),
        recent("fetch", "records came of which none was taken", vitals.silent_since, now, limits.stall),
        recent("writes", "oldest open haul begun", vitals.oldest_haul_at, now, limits.haul),
        recent("assignment", "given up or asked for", vitals.outside_since, now, limits.assignment),
    ))  # fmt: skip


def readiness(vitals: Vitals, now: float, limits: Limits) -> Report:
    """Does it take its share of the topic? No is a reason to wait, or to look at what it waits for."""
    member = vitals.pump_at is not None and vitals.outside_since is None
    circuits = vitals.circuits
    told = (
        "the registry is not in force yet" if circuits is None else ", ".join(f"{c} {s}" for c, s in circuits.items())
    )
    return Report((
        Check("stage", vitals.stage is Stage.RUNNING, vitals.stage.value),
        recent("loop", "turned", vitals.loop_at, now, limits.stall),
        Check("assignment", member, _partitions(vitals) if member else "waiting for the consumer group"),
        Check("clusters", circuits is not None, told),
    ))  # fmt: skip


def recent(name: str, what: str, at: float | None, now: float, most: float) -> Check:
    """Passes if it happened at most so long ago, or is nothing to wait for."""
    if at is None:
        return Check(name, passes=True, detail="nothing to wait for")
    age = now - at
    return Check(name, passes=age <= most, detail=f"{what} {age:.1f} s ago; at most {most:g} s")


def _partitions(vitals: Vitals) -> str:
    return f"{vitals.partitions} partitions" if vitals.partitions else "no partitions: others are enough for them"
