"""Ours is only what has our pid, our start time and our mark; everybody else is a stranger."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from time import monotonic

import msgspec
import psutil
import pytest

from eventstore.local import process
from eventstore.local.process import PROCESS_FILE, Process

pytestmark = pytest.mark.unit

SLEEPER = "import time; print('up', flush=True); time.sleep(120)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"
GRACE = 20.0

Spawn = Callable[..., Process]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Starts a marked process whose directory is `tmp_path`; whatever still runs at the end is killed."""
    spawned: list[Process] = []

    def start(code: str = SLEEPER) -> Process:
        spawned.append(process.spawn(tmp_path, [sys.executable, "-c", code, process.mark(tmp_path)]))
        until(lambda: "up" in (tmp_path / process.LOG_FILE).read_text())
        return spawned[-1]

    yield start
    for one in spawned:
        process.kill(one)


def until(holds: Callable[[], bool], within: float = 20.0) -> None:
    deadline = monotonic() + within
    while not holds():
        assert monotonic() < deadline
        Event().wait(0.01)


def note(directory: Path, noted: Process) -> None:
    (directory / PROCESS_FILE).write_bytes(msgspec.json.encode(noted))


def this_process() -> Process:
    return Process(os.getpid(), psutil.Process().create_time())


def test_a_spawned_process_is_found_again(tmp_path: Path, spawn: Spawn) -> None:
    assert process.find(tmp_path) is None
    started = spawn()
    assert process.find(tmp_path) == started
    assert process.stale(tmp_path) is None


def test_it_is_found_without_its_pid_file(tmp_path: Path, spawn: Spawn) -> None:
    started = spawn()
    (tmp_path / PROCESS_FILE).unlink()
    found = process.find(tmp_path)
    assert found is not None
    assert found.pid == started.pid


def test_it_is_found_behind_a_damaged_pid_file(tmp_path: Path, spawn: Spawn) -> None:
    started = spawn()
    (tmp_path / PROCESS_FILE).write_text("half a li")
    found = process.find(tmp_path)
    assert found is not None
    assert found.pid == started.pid


def test_a_recycled_pid_is_not_ours(tmp_path: Path) -> None:
    recycled = Process(os.getpid(), this_process().started - 1_000)
    note(tmp_path, recycled)
    assert process.find(tmp_path) is None
    assert process.stale(tmp_path) == recycled


def test_a_process_without_our_mark_is_not_ours(tmp_path: Path) -> None:
    note(tmp_path, this_process())
    assert process.find(tmp_path) is None


def test_the_server_of_another_directory_is_not_ours(tmp_path: Path, spawn: Spawn) -> None:
    other = tmp_path / "other"
    other.mkdir()
    note(other, spawn())
    assert process.find(other) is None


def test_it_lives_in_a_session_of_its_own_and_holds_no_file_of_ours(tmp_path: Path, spawn: Spawn) -> None:
    with (tmp_path / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        started = spawn()
    held = {file.path for file in psutil.Process(started.pid).open_files()}
    assert str(tmp_path / "ours") not in held
    assert os.getsid(started.pid) != os.getsid(0)


def test_a_process_that_is_asked_to_stop_stops(spawn: Spawn) -> None:
    started = spawn()
    assert not process.stop(started, GRACE)
    assert not process.is_alive(started)


def test_a_process_that_will_not_stop_is_killed(spawn: Spawn) -> None:
    started = spawn(STUBBORN)
    assert process.stop(started, 0.2)
    assert not process.is_alive(started)


def test_stopping_what_is_gone_is_no_error(spawn: Spawn) -> None:
    started = spawn()
    process.kill(started)
    assert not process.stop(started, GRACE)
    assert process.memory(started) == 0


def test_a_large_log_is_put_aside_at_the_next_start(tmp_path: Path, spawn: Spawn) -> None:
    (tmp_path / process.LOG_FILE).write_bytes(b"x" * 17 * 2**20)
    spawn()
    assert (tmp_path / process.LOG_FILE).stat().st_size < 100
    assert (tmp_path / "server.log.1").stat().st_size == 17 * 2**20
