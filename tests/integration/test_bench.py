"""The benchmarks in small, so that they cannot rot."""

from pathlib import Path

import pytest

from eventstore.registry import load_registry
from tests.benchmarks.arena import Arena, WrongRowsError
from tests.benchmarks.bench import QUICK, Bench
from tests.benchmarks.scenarios import chosen
from tests.stacks import RunningStack

pytestmark = pytest.mark.integration


def test_benchmarks_run_and_find_every_event_stored_once(stack: RunningStack, tmp_path: Path) -> None:
    arena = Arena(stack.bootstrap_servers, load_registry(stack.registry_path).clusters["c30"], tmp_path)
    bench = Bench(arena, QUICK)
    try:
        for scenario in chosen("lane, sink"):
            scenario.run(bench)
        (load,) = [load for load in arena.loads if load.events == QUICK.events]
        with arena.keyspace(load.data.tenants) as empty, pytest.raises(WrongRowsError, match=f"{load.events} missing"):
            arena.check(empty, load.users)
    finally:
        arena.close()
    assert [(result.scenario, result.name) for result in bench.results] == [
        ("contest", "lane"), ("sink", "lane"),
    ]  # fmt: skip
    assert all(result.figures["cpu_us"] > 0 and result.figures["rows_per_batch"] >= 1 for result in bench.results)
