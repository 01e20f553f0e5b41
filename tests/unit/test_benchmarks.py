"""What benchmarks compute: a wrong sum here would be believed."""

import ast

import pytest

from tests.benchmarks.data import hot_user, many_tenants, sized, wikipedia
from tests.benchmarks.profile import Stack, attribute
from tests.benchmarks.ratios import losses, measured
from tests.benchmarks.results import Result, Run, markdown, medians
from tests.benchmarks.stages import REPOSITORY, RULES, Rule, Stage, stage_of
from tests.builders import NOW_MS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.file}:{rule.function}:{rule.text}")
def test_every_function_and_line_that_a_profile_is_read_by_exists(rule: Rule) -> None:
    source = (REPOSITORY / rule.file).read_text("utf-8")
    found = [
        ast.get_source_segment(source, node) or ""
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == rule.function
    ]
    assert found, f"{rule.file} has no function {rule.function}: mend tests/benchmarks/stages.py"
    assert any(rule.text in line for segment in found for line in segment.splitlines())


def test_a_sample_counts_for_its_innermost_frame_of_ours() -> None:
    ours = f"write ({REPOSITORY / 'eventstore/store/lane/frames.py'}:1)"
    outer = f"run ({REPOSITORY / 'eventstore/ingest/pipeline.py'}:1)"
    assert stage_of(["somewhere (threading.py:3)", ours, outer]) is Stage.FRAME
    assert stage_of([outer]) is Stage.HAND_OVER
    assert stage_of(["somewhere (threading.py:3)"]) is None


def test_the_lines_of_one_function_count_for_different_stages() -> None:
    path = REPOSITORY / "eventstore/store/lane/lane.py"
    number = next(n for n, line in enumerate(path.read_text().splitlines(), 1) if "self._transport.write(data)" in line)
    assert stage_of([f"flush ({path}:{number})"]) is Stage.SEND
    assert stage_of([f"flush ({path}:{number - 1})"]) is Stage.FRAME


def test_a_threads_time_is_shared_out_by_its_samples() -> None:
    frames = (f"write ({REPOSITORY / 'eventstore/store/lane/frames.py'}:1)",)
    sampled = [Stack(1, frames, 3), Stack(1, ("poll (loop.py:1)",), 1), Stack(2, ("poll (loop.py:1)",), 5)]
    cost = attribute({(1, "python"): 4.0, (2, "python"): 1.0, (3, "rdk:main"): 2.0}, sampled, main=1, events=1_000_000)
    assert cost == {Stage.FRAME: 3.0, Stage.LOOP: 1.0, Stage.FETCH: 3.0}


def test_ratios_are_of_medians_and_a_loss_beyond_the_allowed_share_is_told() -> None:
    cpu = {"stock": [200.0, 400.0, 210.0], "simple": [30.0], "lane": [5.0, 7.0, 6.0]}
    results = [Result("contest", name, {"cpu_us": us}) for name, rounds in cpu.items() for us in rounds]
    now = measured(Run("", "", 1, results))
    assert now == {"stock/lane": 35.0, "simple/lane": 5.0}
    assert losses({"stock/lane": 40.0, "simple/lane": 6.0, "driver/lane": 2.0}, now) == ["simple/lane"]


def test_a_run_without_the_lane_has_no_ratios() -> None:
    assert measured(Run("", "", 1, [Result("contest", "stock", {"cpu_us": 1.0})])) == {}


def test_each_figure_has_its_own_median_and_a_table_shows_what_was_found() -> None:
    rounds = [Result("contest", "lane", {"cpu_us": us, "peak_mb": mb}) for us, mb in ((5, 90), (9, 80), (7, 100))]
    (middle,) = medians(rounds)
    assert middle.figures == {"cpu_us": 7, "peak_mb": 90}
    assert "| lane | 7 | 90 |" in markdown(Run("2026-11-22", "two cores", 1, rounds))


def test_loads_are_what_they_say() -> None:
    assert {len(list(load)) for load in (wikipedia(50, NOW_MS), hot_user(50, NOW_MS))} == {50}
    assert len({event.key for event in hot_user(50, NOW_MS)}) == 1
    assert {event.tenant for event in many_tenants(2_000, NOW_MS, 3)} == {"t0", "t1", "t2"}
    assert all(abs(len(event.value) - 8_000) < 20 for event in sized(20, NOW_MS, 8_000))
    assert len({event.value for event in sized(200, NOW_MS, 200)}) == 200
    assert list(wikipedia(50, NOW_MS)) == list(wikipedia(50, NOW_MS))
