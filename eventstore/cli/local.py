"""`eventstore local`: a real Kafka and real CQL servers on this machine, without Docker or a system Java."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, TaskID

from eventstore.cli.console import AsJson, err, out, print_json, progress, table
from eventstore.config import Settings, load_settings
from eventstore.errors import ConfigurationError, RefusedError
from eventstore.registry import load_registry

if TYPE_CHECKING:  # the extra `local` may be absent, and every command imports this module
    from eventstore.local.stack import ServerStatus, Stack

local = typer.Typer(
    name="local", help="The embedded stack: Kafka and one CQL server for each cluster.", no_args_is_help=True
)
MIB = 2**20

Clusters = Annotated[
    str,
    typer.Option(metavar="NAME,NAME", help="Only these clusters of the registry. Default: all on loopback addresses."),
]


def register(app: typer.Typer) -> None:
    app.add_typer(local)


@local.command()
def up(*, clusters: Clusters = "", as_json: AsJson = False) -> None:
    """Start what does not run yet, and wait until every server answers.

    The first time it downloads about 110 MB of pinned, verified packages into your cache; afterwards it needs no
    network. A cluster of the registry at another address than loopback, or another Kafka in the settings, is used as
    it is and not started.

    Examples:
    - `eventstore local up`
    - `eventstore local up --clusters es15,vip`
    - `EVENTSTORE_REGISTRY=schemas/tenants.example.yaml eventstore local up --json`
    """
    stack = _stack(load_settings(), clusters)
    with shown_progress() as bars:
        statuses = stack.up(bars)
    _print(statuses, as_json=as_json)


@local.command()
def status(*, as_json: AsJson = False) -> None:
    """Show every server: its state, process, memory and data on disk.

    Examples:
    - `eventstore local status`
    - `eventstore local status --json`
    """
    _print(_stack(load_settings()).status(), as_json=as_json)


@local.command()
def logs(
    server: Annotated[str, typer.Argument(help="`kafka`, or a cluster's name.")],
    *,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what is logged from now on.")] = False,
) -> None:
    """Print the end of a server's log.

    Examples:
    - `eventstore local logs kafka`
    - `eventstore local logs es15 -n 200`
    - `eventstore local logs es15 -f`
    """
    path = _log(load_settings().local.data_dir.resolve(), server)
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=lines):
            out.print(line, end="", markup=False, soft_wrap=True)
        while follow:
            for line in file:
                out.print(line, end="", markup=False, soft_wrap=True)
            threading.Event().wait(0.2)


@local.command()
def down() -> None:
    """Stop the servers of the embedded stack. Leaves nothing but their data.

    Examples:
    - `eventstore local down`
    - `EVENTSTORE_LOCAL__DATA_DIR=.demo/servers eventstore local down`
    """
    from eventstore.local import lifecycle  # noqa: PLC0415 — see TYPE_CHECKING above

    data_dir = load_settings().local.data_dir
    with shown_progress() as bars:
        stopped = lifecycle.down(data_dir, bars)
    out.print(f"stopped {', '.join(stopped)}" if stopped else f"nothing of {data_dir} was running", soft_wrap=True)


@local.command()
def reset(*, yes: Annotated[bool, typer.Option("--yes", help="Really delete all data of the stack.")] = False) -> None:
    """Delete the data of the embedded stack. Refused (exit 3) without --yes and while a server runs.

    Examples:
    - `eventstore local reset --yes`
    - `eventstore local down && eventstore local reset --yes && eventstore local up`
    """
    from eventstore.local import lifecycle  # noqa: PLC0415 — see TYPE_CHECKING above

    data_dir = load_settings().local.data_dir
    if not yes:
        raise RefusedError(
            f"reset: expected --yes, because it deletes all data below {data_dir.resolve()}; run it again with that"
        )
    out.print(f"deleted {lifecycle.reset(data_dir) / MIB:,.1f} MiB below {data_dir}")


@local.command(hidden=True)
def lock() -> None:
    """Maintenance: resolve the servers' packages anew and rewrite the lock file of this source tree.

    The versions stand in `eventstore/local/resolution.py`.

    Examples:
    - `eventstore local lock`
    """
    from eventstore.local import lockfile, resolution  # noqa: PLC0415 — see TYPE_CHECKING above

    with err.status("resolving") as spinner:
        distributions = resolution.resolve(spinner.update)
    path = Path(lockfile.__file__).with_name(lockfile.LOCK_NAME)
    lockfile.write_lock(path, distributions)
    for name, made in distributions.items():
        size = sum(pin.size for pin in made.artifacts.values())
        out.print(f"{name} {made.version}: {len(made.artifacts)} artifacts, {size / MIB:,.1f} MiB")


@contextmanager
def shown_progress() -> Iterator["ShownProgress"]:
    """Bars for a terminal, a line for each change of state otherwise."""
    with progress() as bars:
        yield ShownProgress(bars)


class ShownProgress:
    """What the embedded stack is doing, on standard error. Satisfies `eventstore.local.progress.Progress`."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._download: TaskID | None = None
        self._servers: dict[str, TaskID] = {}

    def fetching(self, files: int, size: int) -> None:
        self._line(f"fetching {files} packages, {size / MIB:,.0f} MiB")
        self._download = self._bars.add_task(f"fetching {files} packages", total=size / MIB, note="MiB")

    def received(self, size: int) -> None:
        if self._download is not None:
            self._bars.advance(self._download, size / MIB)

    def server(self, name: str, state: str) -> None:
        self._line(f"{name}: {state}")
        if name not in self._servers:
            self._servers[name] = self._bars.add_task(name, total=1, note="")
        done = state in {"answers", "stopped"}
        self._bars.update(self._servers[name], note=state, completed=int(done))

    def _line(self, text: str) -> None:
        if self._bars.disable:
            err.print(text, markup=False, soft_wrap=True)


def _stack(settings: Settings, clusters: str = "") -> "Stack":
    from eventstore.local.stack import Stack  # noqa: PLC0415 — see TYPE_CHECKING above

    return Stack(settings, load_registry(settings.registry), [name for name in clusters.split(",") if name])


def _log(data_dir: Path, server: str) -> Path:
    known = {path.parent.name: path for path in sorted(data_dir.glob("*/server.log"))}
    if server not in known:
        raise ConfigurationError(
            f"logs: expected one of {', '.join(known) or 'no server (none was started yet)'}, got {server}; see `eventstore local status`"
        )
    return known[server]


def _print(statuses: Sequence["ServerStatus"], *, as_json: bool) -> None:
    if as_json:
        print_json(statuses)
        return
    out.print(table("", ("server", "address", "state", "pid#", "version", "memory#", "data#"), map(_row, statuses)))


def _row(status: "ServerStatus") -> tuple[str, ...]:
    memory, data = (f"{size / MIB:,.0f} MiB" if size else "" for size in (status.memory, status.data_size))
    return (status.name, status.address, status.state, str(status.pid or ""), status.version or "", memory, data)
