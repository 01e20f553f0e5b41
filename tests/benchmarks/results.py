"""What a run has found: figures by scenario and name, kept as JSON and shown as Markdown."""

import os
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import msgspec

FOLDER: Final = Path(__file__).parent.parent.parent / "bench-results"
LATEST: Final = FOLDER / "results.json"

UNITS: Final = {
    "cpu_us": "CPU us/event",
    "per_second": "events/s",
    "per_core": "events/s a core",
    "peak_mb": "peak MB",
    "batches": "batches",
    "rows_per_batch": "rows/batch",
    "write_p50_ms": "write p50 ms",
    "write_p99_ms": "write p99 ms",
    "fresh_p50_ms": "fresh p50 ms",
    "fresh_p99_ms": "fresh p99 ms",
    "fresh_max_ms": "fresh max ms",
    "read_p50_ms": "read p50 ms",
    "read_p99_ms": "read p99 ms",
    "load": "load events/s",
    "seconds_late": "done, s late",
    "gap_before_s": "gap before s",
    "gap_s": "survivors' gap s",
    "more_us": "us more/event",
    "check_us": "check us/event",
    "full_us": "by all of JSON Schema us/event",
    "cpu_ratio": "CPU of replay / live",
    "refused": "refused of the load",
    "p99_ratio": "p99 / calm",
    "events": "events",
    "host_load": "host load",
}
"""Every figure, by name, with how a table heads it."""


class Point(msgspec.Struct, frozen=True):
    """One sample of a worker: seconds since its start, resident memory."""

    seconds: float
    mb: float


class Result(msgspec.Struct, frozen=True):
    """One contestant or case in one round."""

    scenario: str
    name: str
    figures: dict[str, float]
    curve: list[Point] = []
    """Memory over time."""


class Run(msgspec.Struct, frozen=True):
    began: str
    machine: str
    events: int
    results: list[Result]


def host_load() -> float:
    """How many processes want a processor, over the last minute: what a figure must be read with."""
    return round(os.getloadavg()[0], 1)


def latency(kind: str, seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile, as figures of that kind (`read`, `write`, `fresh`), beside the host's load."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {f"{kind}_p50_ms": cuts[49] * 1e3, f"{kind}_p99_ms": cuts[98] * 1e3, "host_load": host_load()}


def machine() -> str:
    return (
        f"{os.cpu_count()} shared cores, {platform.system()}, Python {platform.python_version()}, "
        f"confluent-kafka {version('confluent-kafka')}, scylla-driver {version('scylla-driver')}"
    )


def medians(results: Iterable[Result]) -> list[Result]:
    """Over the rounds of each case, figure by figure; the curve of the last round."""
    cases: defaultdict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        cases[result.scenario, result.name].append(result)
    return [
        Result(scenario, name, _middle([result.figures for result in rounds]), rounds[-1].curve)
        for (scenario, name), rounds in cases.items()
    ]


def _middle(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(median(figures[name] for figures in rounds if name in figures), 3) for name in rounds[-1]}


def save(results: Sequence[Result], events: int, began: datetime) -> Run:
    """Write the run as JSON and Markdown below `bench-results`."""
    run = Run(began.isoformat(timespec="seconds"), machine(), events, list(results))
    FOLDER.mkdir(exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(run), indent=1)
    LATEST.write_bytes(text)
    (FOLDER / f"{began:%Y%m%d-%H%M%S}.json").write_bytes(text)
    (FOLDER / "results.md").write_text(markdown(run), "utf-8")
    return run


def load(path: Path = LATEST) -> Run:
    """Raises FileNotFoundError if there has been no run."""
    return msgspec.json.decode(path.read_bytes(), type=Run)


def markdown(run: Run) -> str:
    """A table for each scenario: medians over its rounds."""
    parts = [f"# Benchmarks of {run.began}\n\n{run.machine}; {run.events:,} events of the main load.\n"]
    by_scenario: defaultdict[str, list[Result]] = defaultdict(list)
    for result in medians(run.results):
        by_scenario[result.scenario].append(result)
    for scenario, results in by_scenario.items():
        columns = [name for name in UNITS if any(name in result.figures for result in results)]
        rounds = max(sum(r.name == each.name and r.scenario == scenario for r in run.results) for each in results)
        parts.append(f"\n## {scenario} (median of {rounds})\n\n")
        parts.append("| | " + " | ".join(UNITS[name] for name in columns) + " |\n")
        parts.append("|---|" + "---:|" * len(columns) + "\n")
        for result in results:
            cells = (_spell(result.figures.get(name)) for name in columns)
            parts.append(f"| {result.name} | " + " | ".join(cells) + " |\n")
    return "".join(parts)


def line(result: Result) -> str:
    """One result on one line, for the terminal."""
    shown = "  ".join(f"{UNITS[name]} {_spell(value)}" for name, value in result.figures.items())
    return f"{result.scenario:10} {result.name:28} {shown}"


def _spell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1_000 or value == int(value) else f"{value:.3g}"


def now() -> datetime:
    return datetime.now(UTC)
