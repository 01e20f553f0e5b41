"""How replays look on a terminal and in scripts."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from rich.filesize import decimal
from rich.progress import TaskID

from eventstore.cli.console import err, out, print_json, progress, table
from eventstore.events.moment import rfc3339
from eventstore.replay.plan import Plan, Progress
from eventstore.replay.planning import Survey
from eventstore.replay.preview import Span, verdicts_told
from eventstore.replay.speed import Speed
from eventstore.replay.state import Replay

BARS: Final = 16
"""Most partitions that have a bar of their own."""
TENANTS: Final = 5
LINE_SECONDS: Final = 1.0
"""Between two lines of progress for scripts."""


def duration_of(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def plan_document(plan: Plan, found: Survey, obstacles: Sequence[str], expected_rate: float) -> dict[str, Any]:
    sample = found.sample
    return {
        "topic": plan.topic,
        "partitions": [
            {"partition": partition, "from": each.start, "to": each.end, "records": each.records}
            | msgspec.to_builtins(sample.spans.get(partition, Span()))
            for partition, each in plan.ranges.items()
        ],
        "records": plan.records,
        "bytes": sample.bytes_of(plan.records),
        "seconds": round(plan.records / expected_rate, 1),
        "clusters": list(plan.clusters),
        "scope": msgspec.to_builtins(plan.scope),
        "sample": {
            "records": sample.records, "verdicts": dict(sample.verdicts), "tenants": dict(sample.tenants),
            "clusters": dict(sample.clusters),
        },
        "obstacles": list(obstacles),
    }  # fmt: skip


def print_plan(plan: Plan, found: Survey, obstacles: Sequence[str], expected_rate: float) -> None:
    sample = found.sample
    rows = []
    for partition, each in plan.ranges.items():
        span = sample.spans.get(partition, Span())
        rows.append((partition, each.start, _when(span.first_ms), each.end, _when(span.last_ms), f"{each.records:,}"))
    columns = ("partition#", "from#", "of", "to#", "last of", "records <=#")
    out.print(table(f"Range of {plan.topic}", columns, rows))
    size, seconds = decimal(sample.bytes_of(plan.records)), duration_of(plan.records / expected_rate)
    tenants = ", ".join(name for name, _ in sample.tenants.most_common(TENANTS))
    more = f" and {len(sample.tenants) - TENANTS} more" if len(sample.tenants) > TENANTS else ""
    say(f"At most {plan.records:,} records, about {size}, about {seconds} at {expected_rate:,.0f} records a second.")
    say(f"Writes to {', '.join(plan.clusters)}. Seen in a sample of {sample.records:,}: "
        f"{', '.join(verdicts_told(sample.verdicts))}; tenants {tenants or 'none'}{more}.")  # fmt: skip
    for obstacle in obstacles:
        err.print(f"Obstacle: {obstacle}", style="red", markup=False, soft_wrap=True)


def say(text: str) -> None:
    out.print(text, markup=False, soft_wrap=True)


def _when(ms: int | None) -> str:
    return "" if ms is None else rfc3339(ms // 1_000 * 1_000)


class Follower:
    """Shows how a replay gets on: bars on a terminal, or lines of JSON."""

    def __init__(self, replay_id: str, *, as_json: bool) -> None:
        self._id = replay_id
        self._as_json = as_json
        self._speed = Speed()
        self._bars = progress()
        self._tasks: dict[int, TaskID] = {}
        self._total: TaskID | None = None
        self._next_line = 0.0

    @contextmanager
    def showing(self) -> Iterator["Follower"]:
        with self._bars:
            yield self

    def hear(self, reached: Progress) -> None:
        now = time.monotonic()
        self._speed.observe(reached.done, now)
        if self._as_json:
            if now >= self._next_line:
                self._next_line = now + LINE_SECONDS
                print_json({"event": "progress"} | self._document(reached))
        else:
            self._draw(reached)

    def _document(self, reached: Progress) -> dict[str, Any]:
        left = self._speed.seconds_for(reached.total - reached.done)
        return {
            "replay": self._id,
            "done": reached.done,
            "records": reached.total,
            "per_second": round(self._speed.per_second),
            "seconds_left": None if left is None else round(left),
            "partitions": {str(place.partition): place.at for place in reached.places},
        }

    def _draw(self, reached: Progress) -> None:
        if len(reached.places) <= BARS:
            for place in reached.places:
                if place.partition not in self._tasks:
                    self._tasks[place.partition] = self._bars.add_task(f"partition {place.partition}", note="")
                self._bars.update(self._tasks[place.partition], completed=place.done, total=place.range.records)
        if self._total is None:
            self._total = self._bars.add_task(f"replay {self._id}", note="")
        left = duration_of(self._speed.seconds_for(reached.total - reached.done))
        note = f"{self._speed.per_second:,.0f}/s, {left} left"
        self._bars.update(self._total, completed=reached.done, total=reached.total, note=note)


def replay_document(replay: Replay, reached: Progress, members: Sequence[str]) -> dict[str, Any]:
    return {
        "replay": replay.plan.id,
        "status": replay.status.value,
        "changed": rfc3339(replay.changed_ms),
        "done": reached.done,
        "records": reached.total,
        "members": list(members),
        "clusters": list(replay.plan.clusters),
        "topic": replay.plan.topic,
        "partitions": [
            {"partition": p.partition, "from": p.range.start, "at": p.at, "to": p.range.end} for p in reached.places
        ],
    }


def print_replays(found: Sequence[tuple[Replay, Progress, Sequence[str]]]) -> None:
    rows = (
        (
            replay.plan.id, replay.status.value, f"{reached.done / max(1, reached.total):.1%}", f"{reached.total:,}",
            len(members), ", ".join(replay.plan.clusters), rfc3339(replay.changed_ms // 1_000 * 1_000),
        )
        for replay, reached, members in found
    )  # fmt: skip
    columns = ("replay", "status", "done#", "records <=#", "members#", "writes", "since")
    out.print(table("Replays", columns, rows) if found else "No replays.")
