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


def test_a_scenario_may_have_a_share_of_a_long_runs_events_and_its_faults_are_a_long_runs() -> None:
    dear = Scenario(row="Edge", run=lambda _: None, seconds=30, share=0.3)
    long, short = dear.terms(LONG_EVENTS), dear.terms(600)
    assert (long.events, long.rate, long.long) == (0.3 * LONG_EVENTS, 0.01 * LONG_EVENTS, True)
    assert (short.events, short.rate, short.long) == (600, 600 / SHORT_SECONDS, False)


def test_the_table_sums_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    monkeypatch.setattr(results, "PAGE", page)
    results.write_table([GOOD, replace(GOOD, scenario="zombie", recovery_s=None)])
    written = page.read_text()
    assert "old" not in written
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "| **all** | | **200,000** | **10** | **0** | **0** | **0** | | |" in written


def test_the_page_names_every_scenario() -> None:
    page = results.PAGE.read_text("utf-8")
    assert [name for name in SCENARIOS if f"`{name}`" not in page] == []
