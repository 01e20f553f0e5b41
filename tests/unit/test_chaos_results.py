"""What a scenario came to, as a line, as JSON and as a row of the page."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import results
from tests.chaos.catalogue import SCENARIOS, SHORT_SECONDS, Scenario
from tests.chaos.field import LONG_EVENTS
from tests.chaos.results import Outcome

pytestmark = pytest.mark.unit

GOOD = Outcome(
    scenario="sigkill", row="Process", events=100_000, faults=["worker SIGKILL x5"], kills=5,
    verdict={"lost": 0, "doubled": 0, "foreign": 0, "offsets": 0}, freshness_worst_s=9.5, freshness_p99_ms=800.0,
    recovery_s=1.25, seconds=90.0,
)  # fmt: skip


def test_a_line_says_what_was_broken_and_what_is_lost() -> None:
    said = results.line(GOOD)
    assert said.startswith(
        "ok   sigkill: 100000 events, worker SIGKILL x5, 5 hard kills: lost 0, doubled 0, foreign 0;"
    )
    assert "recovered in 1.2 s" in said


def test_one_broken_rule_fails_a_scenario_and_is_named_with_its_examples() -> None:
    broken = replace(GOOD, verdict=GOOD.verdict | {"offsets": 1}, examples=["offsets: events/0"])
    assert not broken.passed
    assert results.line(broken).startswith("FAIL sigkill")
    assert "offsets 1" in results.line(broken)
    assert "offsets: events/0" in results.line(broken)


def test_a_scenario_that_could_not_be_played_has_failed() -> None:
    assert not replace(GOOD, failure="AssertionError: waited 90 s").passed


def test_results_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.save(GOOD)
    assert results.load("sigkill") == GOOD
    assert results.load("never played") is None


def test_every_scenario_of_a_long_run_has_all_of_its_events() -> None:
    assert {scenario.terms(LONG_EVENTS).events for scenario in SCENARIOS.values()} == {LONG_EVENTS}


def test_a_smaller_run_is_quicker_and_its_faults_are_a_short_runs() -> None:
    slow = Scenario(row="Edge", run=lambda _: None, seconds=100)
    long, short = slow.terms(LONG_EVENTS), slow.terms(600)
    assert (long.events, long.rate, long.long) == (LONG_EVENTS, 0.01 * LONG_EVENTS, True)
    assert (short.events, short.rate, short.long) == (600, 600 / SHORT_SECONDS, False)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "page.md"
    found.write_text(f"before\n{results.BEGIN}\n{results.END}\nafter\n")
    monkeypatch.setattr(results, "PAGE", found)
    return found


def test_the_table_sums_up(page: Path) -> None:
    results.write_table([GOOD, replace(GOOD, scenario="zombie", recovery_s=None)], ["sigkill", "zombie"])
    written = page.read_text()
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "| **all** | | **200,000** | **10** | **0** | **0** | **0** | | |" in written


def test_a_scenario_that_was_not_played_again_keeps_its_row(page: Path) -> None:
    order = ["sigkill", "zombie", "scaling"]
    results.write_table([replace(GOOD, scenario="scaling", events=1), GOOD], order)
    results.write_table([replace(GOOD, scenario="zombie"), replace(GOOD, events=7)], order)
    cells = [line.split(" | ")[0] for line in page.read_text().splitlines() if line.startswith("| `")]
    assert cells == ["| `sigkill`", "| `zombie`", "| `scaling`"]
    assert "| **all** | | **100,008** | **15** | **0** | **0** | **0** | | |" in page.read_text()


def test_a_scenario_that_there_is_no_more_leaves_the_table(page: Path) -> None:
    results.write_table([GOOD], ["sigkill"])
    results.write_table([replace(GOOD, scenario="zombie")], ["zombie"])
    assert "sigkill" not in page.read_text()


def test_the_page_names_every_scenario() -> None:
    page = results.PAGE.read_text("utf-8")
    assert [name for name in SCENARIOS if f"`{name}`" not in page] == []
