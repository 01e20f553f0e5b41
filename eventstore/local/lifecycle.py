"""From an empty directory to a server that may start, and from a running server to nothing but its data.

Ending needs no registry: whatever runs below the data directory is ours.
"""

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from eventstore.errors import LocalStackError, RefusedError
from eventstore.local import process
from eventstore.local.progress import SILENT, Progress
from eventstore.local.server import Server

INITIALISED = "initialised"
"""A file that says that the server has answered once: its data directory is whole."""
STOP_GRACE = 30.0
"""Seconds that a server has to stop by itself before it is killed."""


def prepare(server: Server, class_path: tuple[Path, ...], progress: Progress) -> None:
    """Directories, configuration and, at the first start, formatted data.

    Raises:
        LocalStackError: the directory cannot be written or formatted.
    """
    try:
        if left := process.stale(server.directory):
            progress.server(server.name, f"was process {left.pid}, which is gone")
        if _is_half_written(server):
            progress.server(server.name, "first start was cut short before any data came: beginning anew")
            shutil.rmtree(server.data)
        for directory in (server.directory, server.configuration, server.directory / "tmp"):
            directory.mkdir(parents=True, exist_ok=True)
        server.write_configuration()
        server.format(class_path)
    except OSError as error:
        raise LocalStackError(
            f"{server.name}: expected to write below {server.directory}, got {error.strerror}; mend that, or set EVENTSTORE_LOCAL__DATA_DIR"
        ) from error


def _is_half_written(server: Server) -> bool:
    never_answered = not (server.directory / INITIALISED).exists()
    return never_answered and server.data.exists() and not server.holds_user_data()


def running(data_dir: Path) -> dict[str, process.Process]:
    """The servers that run below the data directory, by name."""
    homes = sorted(path for path in data_dir.resolve().glob("*") if (path / "conf").is_dir())
    return {home.name: found for home in homes if (found := process.find(home))}


def down(data_dir: Path, progress: Progress = SILENT) -> tuple[str, ...]:
    """Stop every server of ours, all at once; leaves nothing but data. The names of those that ran."""
    root = data_dir.resolve()
    if not root.is_dir():
        return ()
    with locked(root):
        names = tuple(running(root))
        halt_all([root / name for name in names], progress)
    return names


def halt_all(directories: Collection[Path], progress: Progress = SILENT) -> None:
    """Stop the servers of these directories, as far as they run, all at once."""
    with ThreadPoolExecutor(max_workers=max(1, len(directories))) as pool:
        list(pool.map(lambda directory: _halt(directory, progress), directories))


def _halt(directory: Path, progress: Progress) -> None:
    if found := process.find(directory):
        progress.server(directory.name, "stopping")
        killed = process.stop(found, STOP_GRACE)
        progress.server(directory.name, f"killed: it did not stop within {STOP_GRACE:g} s" if killed else "stopped")
    (directory / process.PROCESS_FILE).unlink(missing_ok=True)
    shutil.rmtree(directory / "tmp", ignore_errors=True)


def reset(data_dir: Path) -> int:
    """Delete all data of the stack; the bytes that were freed.

    Raises:
        RefusedError: servers run, or the directory holds something that is not ours.
    """
    root = data_dir.resolve()
    if not root.is_dir():
        return 0
    with locked(root):
        if names := running(root):
            raise RefusedError(
                f"reset: expected no server to run, found {', '.join(names)}; run `eventstore local down` first"
            )
        homes = [path for path in root.iterdir() if path.is_dir() and (path / "conf").is_dir()]
        freed = sum(map(disk_usage, homes))
        for home in homes:
            shutil.rmtree(home)
    return freed


def disk_usage(directory: Path) -> int:
    """Bytes on disk below a directory; Kafka's indexes are sparse, so their length says nothing."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += (Path(folder) / name).lstat().st_blocks * 512
            except FileNotFoundError:  # a running server deletes files too
                continue
    return total


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """One command at a time changes a stack; a second one waits."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / ".lock").open("w")
    except OSError as error:
        raise LocalStackError(
            f"{data_dir}: expected a directory to write to, got {error.strerror}; set EVENTSTORE_LOCAL__DATA_DIR"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
