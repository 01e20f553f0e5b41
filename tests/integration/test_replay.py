"""Replays as an operator runs them, on real servers: nothing missing, nothing doubled, whatever ends them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventstore.registry import now_ms
from tests.builders import envelope
from tests.stacks import RunningStack
from tests.world import World, own_world

pytestmark = pytest.mark.integration

COUNT = 4_000


def event(number: int, tenant: str = "shop", name: str = "product_viewed") -> tuple[bytes, bytes]:
    uid = f"u{number % 500}"
    value = envelope(tenant=tenant, uid=uid, event=name, timestamp=now_ms(), message_id=f"{tenant}-{number}")
    return f"{tenant}:{uid}".encode(), value


@pytest.fixture
def world(stack: RunningStack, tmp_path: Path) -> Iterator[World]:
    with own_world(stack, tmp_path, {"shop": {"tier": "t30"}, "forum": {"tier": "t15"}}) as found:
        yield found


def replay(world: World, *words: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "eventstore", "replay", *words],
        env=world.environment | {"COLUMNS": "200"} | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_replay_stores_its_range_once_and_says_so(world: World) -> None:
    world.publish([*(event(n) for n in range(COUNT)), *(event(n, "forum") for n in range(500)), (b"x", b"not an event")])
    told = lines(replay(world, "run", "--from-earliest", "--to-latest", "--execute", "--json"))
    assert told[0]["event"] == "started"
    assert told[-1]["event"] == "done"
    assert told[-1]["done"] == told[-1]["records"] == COUNT + 501
    assert told[-1]["run"]["rejected"] == {"malformed": 1}
    assert world.census().rows == COUNT + 500
    assert world.census().foreign == 0
    assert world.dead_letters() == []
