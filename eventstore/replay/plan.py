"""What one replay is to do: decided once, kept in Kafka, followed by whoever runs it. Pure."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from eventstore.replay.ranges import Range, Ranges, overlap
from eventstore.replay.scope import Scope


class Plan(msgspec.Struct, frozen=True):
    id: str
    topic: str
    group: str
    """The replay's own consumer group: its committed offsets are the progress."""
    ranges: Ranges
    scope: Scope
    clusters: tuple[str, ...]
    """Those that are written."""
    created_ms: int
    rate: float | None = None
    """Most records a second of all processes together; None: as fast as the store takes them."""
    workers: int = 1

    @property
    def records(self) -> int:
        """At most, before filters."""
        return sum(each.records for each in self.ranges.values())

    def start_offsets(self, committed: Mapping[int, int]) -> dict[int, int]:
        """Where the group must begin in partitions in which it has committed nothing.

        Empty ranges have one, too: else the group would read such a partition from its beginning.
        """
        return {partition: each.start for partition, each in self.ranges.items() if partition not in committed}

    def ends(self) -> dict[int, int]:
        return {partition: each.end for partition, each in self.ranges.items()}


def replay_group(live_group: str, replay_id: str) -> str:
    return f"{live_group}.replay.{replay_id}"


def running_into(plan: Plan, others: Iterable[Plan]) -> Iterator[str]:
    """Why this plan must not run beside the others: they do the same work."""
    for other in others:
        shared = overlap(plan.ranges, other.ranges)
        if other.id != plan.id and other.topic == plan.topic and shared and set(other.clusters) & set(plan.clusters):
            yield (
                f"replay {other.id}: expected to be the only one of its range, but it covers part of partitions "
                f"{', '.join(map(str, shared))} and writes {', '.join(other.clusters)} too; resume or cancel it, or "
                "run beside it with --beside-others"
            )


class Place(msgspec.Struct, frozen=True):
    """How far one partition of a replay is."""

    partition: int
    range: Range
    at: int
    """The next offset to do: everything before is done."""

    @property
    def done(self) -> int:
        return self.at - self.range.start

    @property
    def finished(self) -> bool:
        return self.at >= self.range.end


class Progress(msgspec.Struct, frozen=True):
    places: tuple[Place, ...]

    @property
    def done(self) -> int:
        return sum(place.done for place in self.places)

    @property
    def total(self) -> int:
        return sum(place.range.records for place in self.places)

    @property
    def finished(self) -> bool:
        return all(place.finished for place in self.places)

    def left(self) -> Ranges:
        return {place.partition: Range(place.at, place.range.end) for place in self.places}


def progress(plan: Plan, committed: Mapping[int, int]) -> Progress:
    """How far a replay is whose group has committed these offsets."""
    return Progress(
        tuple(
            Place(partition, each, min(max(committed.get(partition, each.start), each.start), each.end))
            for partition, each in sorted(plan.ranges.items())
        )
    )
