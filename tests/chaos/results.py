"""What a scenario came to: one line, a JSON file, and a row of the table in docs/reliability.md."""

import json
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


def table(outcomes: list[Outcome]) -> str:
    head = [
        "| scenario | what is broken | events | hard kills | lost | doubled | foreign | worst freshness | recovered in |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    rows = [
        f"| `{o.scenario}` | {'; '.join(o.faults)} | {o.events:,} | {o.kills} | {o.verdict['lost']} | "
        f"{o.verdict['doubled']} | {o.verdict['foreign']} | {o.freshness_worst_s:.1f} s | "
        f"{'' if o.recovery_s is None else f'{o.recovery_s:.1f} s'} |"
        for o in outcomes
    ]
    events, kills = sum(o.events for o in outcomes), sum(o.kills for o in outcomes)
    sums = [sum(o.verdict[name] for o in outcomes) for name in _ALWAYS]
    total = f"| **all** | | **{events:,}** | **{kills}** | **{sums[0]}** | **{sums[1]}** | **{sums[2]}** | | |"
    return "\n".join([*head, *rows, total])


def write_table(outcomes: list[Outcome]) -> None:
    """Between its marks on the page."""
    page = PAGE.read_text("utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(outcomes)}\n{END}{after}", "utf-8")
