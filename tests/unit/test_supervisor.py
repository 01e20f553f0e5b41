"""When a supervisor starts a worker again, and when it stops all of them."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventstore.config import Settings, WorkerSettings
from eventstore.errors import ExitCode
from workers import supervisor
from workers.supervisor import Supervisor

pytestmark = pytest.mark.unit

ENDS_AS_THE_FILE_SAYS = """
import os, pathlib, signal, sys
file = pathlib.Path(sys.argv[1])
code, *later = file.read_text().split() or ("none left",)
file.write_text(" ".join(later))
if code == "none left":
    os.kill(os.getppid(), signal.SIGTERM)
else:
    sys.exit(int(code))
"""
"""One exit code a start; then it stops the supervisor."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(supervisor, "POLL_SECONDS", 0.005)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(folder: Path, *codes: int) -> tuple[int, int]:
    """A supervisor of one worker that ends with these codes, one after the other; its own code, and how many are left."""
    codes_file = folder / "codes"
    codes_file.write_text(" ".join(map(str, codes)))
    settings = Settings.model_construct(worker=WorkerSettings(restart_backoff_max=0.01))
    code = Supervisor(settings, 1, (sys.executable, "-c", ENDS_AS_THE_FILE_SAYS, str(codes_file))).run()
    return code, len(codes_file.read_text().split())


@pytest.mark.parametrize("proven_seconds", [-1.0, 60.0])
def test_a_worker_that_refuses_to_go_on_is_not_started_again(
    proven_seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PROVEN_SECONDS", proven_seconds)
    assert run(tmp_path, ExitCode.REFUSED, ExitCode.REFUSED) == (ExitCode.REFUSED, 1)


def test_a_worker_that_failed_is_started_again(tmp_path: Path) -> None:
    assert run(tmp_path, ExitCode.FAILED, -9, ExitCode.REFUSED) == (ExitCode.REFUSED, 0)


def test_a_wrong_configuration_is_final_only_until_it_has_carried_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PROVEN_SECONDS", 60.0)
    assert run(tmp_path, ExitCode.USAGE, ExitCode.REFUSED) == (ExitCode.USAGE, 1)
    monkeypatch.setattr(supervisor, "PROVEN_SECONDS", -1.0)
    assert run(tmp_path, ExitCode.USAGE, ExitCode.REFUSED) == (ExitCode.REFUSED, 0)
