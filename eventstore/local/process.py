"""Processes that outlive the command that started them, and how they are found again.

A pid file alone lies once the pid is given to somebody else, so it carries the start time too, and every process of
ours has a mark in its command line: its own directory. Whoever lacks either is a stranger and is never signalled.
"""

import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

PROCESS_FILE = "process.json"
LOG_FILE = "server.log"
MARK = "-Deventstore.server="
_SAME_START = 2.0
"""Seconds by which two readings of one process's start may differ (the kernel counts in ticks since boot)."""
_ROTATE_BYTES = 16 * 2**20
_POLL = 0.02


class Process(msgspec.Struct, frozen=True):
    pid: int
    started: float
    """Seconds since the epoch."""


def mark(directory: Path) -> str:
    """The JVM argument that makes a process recognisable as the server of this directory."""
    return f"{MARK}{directory}"


def spawn(directory: Path, command: Sequence[str]) -> Process:
    """Start a server in the background: own session, no open files of ours, output appended to its log file."""
    log = directory / LOG_FILE
    if log.exists() and log.stat().st_size > _ROTATE_BYTES:
        log.replace(log.with_suffix(".log.1"))
    # The shell is gone at once, so that the server is nobody's child here: no zombie, no wait.
    shell = subprocess.run(
        ["/bin/sh", "-c", '"$@" >>"$0" 2>&1 </dev/null & echo $!', str(log), *command],
        cwd=directory, start_new_session=True, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    pid = int(shell.stdout)
    try:
        process = Process(pid, psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        process = Process(pid, 0.0)  # dead already; the log file says why
    (directory / PROCESS_FILE).write_bytes(msgspec.json.encode(process))
    return process


def find(directory: Path) -> Process | None:
    """The living server of this directory, also when its pid file is lost."""
    try:
        noted = msgspec.json.decode((directory / PROCESS_FILE).read_bytes(), type=Process)
    except (OSError, msgspec.MsgspecError):
        return _search(directory)
    return noted if is_alive(noted) and _is_marked(noted.pid, directory) else _search(directory)


def stale(directory: Path) -> Process | None:
    """The process that a left-over pid file names, if that is not the living server."""
    try:
        noted = msgspec.json.decode((directory / PROCESS_FILE).read_bytes(), type=Process)
    except (OSError, msgspec.MsgspecError):
        return None
    return None if find(directory) == noted else noted


def is_alive(process: Process) -> bool:
    """Whether that very process, not a later one of the same pid, still runs."""
    try:
        found = psutil.Process(process.pid)
        return abs(found.create_time() - process.started) < _SAME_START and not _is_buried(found)
    except psutil.Error:
        return False


def _is_buried(found: psutil.Process) -> bool:
    """Dead, whether or not its parent has noticed. A killed JVM's other threads hold its ports a moment longer."""
    return bool(found.status() == psutil.STATUS_ZOMBIE and found.num_threads() <= 1)


def memory(process: Process) -> int:
    """Resident bytes; 0 if it has just gone."""
    try:
        return int(psutil.Process(process.pid).memory_info().rss)
    except psutil.Error:
        return 0


def stop(process: Process, grace: float) -> bool:
    """Ask the server to stop, wait `grace` seconds, then kill it; True if it had to be killed."""
    killed = not _end(process, signal.SIGTERM, grace)
    if killed:
        _end(process, signal.SIGKILL, grace)
    return killed


def kill(process: Process) -> None:
    """SIGKILL, and wait until it is gone: what a fault test does to a server."""
    _end(process, signal.SIGKILL, 10.0)


def _end(process: Process, how: signal.Signals, within: float) -> bool:
    """Signal it and wait; False if it is still there."""
    deadline = time.monotonic() + within
    with suppress(psutil.NoSuchProcess):
        if is_alive(process):
            psutil.Process(process.pid).send_signal(how)
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _is_marked(pid: int, directory: Path) -> bool:
    try:
        return mark(directory) in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False


def _search(directory: Path) -> Process | None:
    """A zombie has no command line, so only the living are found."""
    for candidate in psutil.process_iter(["create_time"]):
        if _is_marked(candidate.pid, directory):
            return Process(candidate.pid, candidate.info["create_time"])
    return None
