"""A cluster that is to take another's place, from its schema to its rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from eventstore.cli.app import build
from eventstore.clock import now_ms
from eventstore.errors import ConfigurationError
from eventstore.registry import load_registry
from eventstore.store.session import close, connect
from tests.builders import envelope
from tests.stacks import RunningStack
from tests.world import DDL_SECONDS, World, own_world

pytestmark = pytest.mark.integration

COUNT = 40


@pytest.fixture
def world(stack: RunningStack, tmp_path: Path) -> Iterator[World]:
    """With a cluster `c30b` that no tier uses."""
    with own_world(stack, tmp_path, {"shop": {"tier": "t30"}, "forum": {"tier": "t15"}}) as found:
        document = yaml.safe_load(found.registry.read_text("utf-8"))
        old = document["clusters"]["c30"]
        document["clusters"]["c30b"] = old | {"keyspace": f"{old['keyspace']}_b"}
        found.registry.write_text(yaml.safe_dump(document), "utf-8")
        try:
            yield found
        finally:
            on_parallel(found, f"DROP KEYSPACE IF EXISTS {old['keyspace']}_b")


def on_parallel(world: World, cql: str) -> list[Any]:
    session = connect(load_registry(world.registry).clusters["c30b"], request_timeout=DDL_SECONDS)
    try:
        return list(session.execute(cql))
    finally:
        close(session)


def users(world: World) -> set[str]:
    return {row.uid for row in on_parallel(world, "SELECT uid FROM events")}


def run(world: World, *words: str) -> Result:
    return CliRunner(env=world.environment | {"COLUMNS": "200"}).invoke(build(words[:1]), words)


def ran(world: World, *words: str) -> Any:
    result = run(world, *words, "--json")
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.stdout.splitlines()[-1])


def test_a_replay_fills_a_parallel_cluster_and_erasures_reach_it(world: World) -> None:
    for tenant in ("shop", "forum"):
        world.publish([
            (f"{tenant}:u{n}".encode(), envelope(tenant=tenant, uid=f"u{n}", timestamp=now_ms(), message_id=f"{n}"))
            for n in range(COUNT)
        ])  # fmt: skip
    ran(world, "schema", "apply", "--cluster", "c30b", "--as-tier", "t30")
    into = ("--tier", "t30", "--into", "c30b")
    done = ran(world, "replay", "run", "--from-earliest", "--to-latest", *into, "--execute")
    assert done["event"] == "done"
    assert users(world) == {f"u{n}" for n in range(COUNT)}
    assert ran(world, "replay", "verify", done["replay"])["wrong"] == 0

    ran(world, "erase", "shop", "u7", "--execute")  # the replay is on record, so its cluster is known
    assert users(world) == {f"u{n}" for n in range(COUNT)} - {"u7"}
    assert ran(world, "erasures", "repeat", "--cluster", "c30b", "--as-tier", "t30")["partitions"]["c30b"] > 0
    unclear = run(world, "erasures", "repeat", "--cluster", "c30b", "--execute").exception
    assert isinstance(unclear, ConfigurationError)
    assert "say with --as-tier" in str(unclear)
