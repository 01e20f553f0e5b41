"""What a scenario came to: one line, a JSON file, and a row of the table in docs/reliability.md."""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).parent.parent.parent
FOLDER: Final = REPOSITORY / "chaos-results"
PAGE: Final = REPOSITORY / "docs" / "reliability.md"
BEGIN: Final = "<!-- table: begin -->"
END: Final = "<!-- table: end -->"


@dataclass(frozen=True, slots=True)
class Outcome:
    scenario: str
    row: str
    """What reliability page calls it."""
    events: int
    """Acknowledged by Kafka."""
    faults: list[str]
    kills: int
    verdict: dict[str, int]
    freshness_worst_s: float
    freshness_p99_ms: float
    recovery_s: float | None
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    failure: str | None = None

    @property
    def passed(self) -> bool:
        return self.failure is None and not any(self.verdict.values())


def line(outcome: Outcome) -> str:
    recovered = "-" if outcome.recovery_s is None else f"{outcome.recovery_s:.1f} s"
    verdict = ", ".join(f"{name} {count}" for name, count in outcome.verdict.items() if count or name in _ALWAYS)
    told = " ".join(f"{name}={value}" for name, value in outcome.figures.items())
    return (
        f"{'ok  ' if outcome.passed else 'FAIL'} {outcome.scenario}: {outcome.events} events, "
        f"{'; '.join(outcome.faults)}, {outcome.kills} hard kills: {verdict}; worst freshness "
        f"{outcome.freshness_worst_s:.1f} s, recovered in {recovered}, {outcome.seconds:.0f} s in all {told}".rstrip()
        + (f"\n     {outcome.failure}" if outcome.failure else "")
        + "".join(f"\n     {example}" for example in outcome.examples)
    )


_ALWAYS: Final = ("lost", "doubled", "foreign")


def save(outcome: Outcome) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{outcome.scenario}.json").write_text(json.dumps(asdict(outcome), indent=1), "utf-8")


def load(name: str) -> Outcome | None:
    path = FOLDER / f"{name}.json"
    return Outcome(**json.loads(path.read_text("utf-8"))) if path.exists() else None


def row(outcome: Outcome) -> str:
    """Of the table."""
    recovered = "" if outcome.recovery_s is None else f"{outcome.recovery_s:.1f} s"
    sums = " | ".join(str(outcome.verdict[name]) for name in _ALWAYS)
    return (
        f"| `{outcome.scenario}` | {'; '.join(outcome.faults)} | {outcome.events:,} | {outcome.kills} | {sums} | "
        f"{outcome.freshness_worst_s:.1f} s | {recovered} |"
    )


def table(rows: Collection[str]) -> str:
    head = [
        "| scenario | what is broken | events | hard kills | lost | doubled | foreign | worst freshness | recovered in |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    columns = zip(*(each.split("|")[_COUNTS] for each in rows), strict=True)
    sums = " | ".join(f"**{sum(int(cell.replace(',', '')) for cell in column):,}**" for column in columns)
    return "\n".join([*head, *rows, f"| **all** | | {sums} | | |"])


_COUNTS: Final = slice(3, 8)
"""The cells of a row that add up."""


def write_table(outcomes: Iterable[Outcome], order: Iterable[str]) -> None:
    """Between its marks on the page, in this order of scenarios; those without an outcome keep the row that they have."""
    page = PAGE.read_text("utf-8")
    before, rest = page.split(BEGIN)
    old, after = rest.split(END)
    found = {match[1]: each for each in old.splitlines() if (match := _NAMED.match(each))}
    found |= {outcome.scenario: row(outcome) for outcome in outcomes}
    rows = [found[name] for name in order if name in found]
    PAGE.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}", "utf-8")


_NAMED: Final = re.compile(r"\| `([^`]+)` ")
