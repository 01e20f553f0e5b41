"""The figures that survive a change of machine: how many times more CPU others need for an event than we do."""

from pathlib import Path
from typing import Final

import msgspec

from tests.benchmarks.results import Run, medians

RECORDED: Final = Path(__file__).parent.parent.parent / "docs" / "benchmarks.json"
ALLOWED_LOSS: Final = 0.15
BEST: Final = "lane"
OTHERS: Final = ("stock", "simple", "driver")

Ratios = dict[str, float]


class Record(msgspec.Struct, frozen=True):
    machine: str
    began: str
    ratios: Ratios
    """`a/b`: CPU an event of a, divided by that of b."""


def measured(run: Run) -> Ratios:
    """The ratios of one run, from medians over its rounds; only of contestants that took part."""
    cpu = {
        f"{result.scenario}.{result.name}": result.figures["cpu_us"]
        for result in medians(run.results)
        if "cpu_us" in result.figures
    }
    best = cpu.get(f"contest.{BEST}")
    if best is None:
        return {}
    return {f"{other}/{BEST}": round(cpu[key] / best, 2) for other in OTHERS if (key := f"contest.{other}") in cpu}


def losses(before: Ratios, now: Ratios) -> list[str]:
    """The ratios that are more than the allowed share below what they were; one not measured is not lost."""
    return [name for name, value in before.items() if name in now and now[name] < value * (1 - ALLOWED_LOSS)]


def report(before: Ratios, now: Ratios) -> str:
    """One line a ratio."""
    lost = losses(before, now)
    lines = [
        f"{name:14} recorded {value:6.2f}  now {now.get(name, float('nan')):6.2f}  "
        f"{'LOST more than ' + format(ALLOWED_LOSS, '.0%') if name in lost else 'kept' if name in now else 'not measured'}"
        for name, value in before.items()
    ]
    return "\n".join(lines)


def recorded() -> Ratios:
    """Raises FileNotFoundError if none have been recorded."""
    return msgspec.json.decode(RECORDED.read_bytes(), type=Record).ratios


def record(run: Run) -> None:
    """Make this run's ratios the recorded ones."""
    made = Record(run.machine, run.began, measured(run))
    RECORDED.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
