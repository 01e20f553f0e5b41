"""Backups of the tables of an embedded node: a snapshot, and what has been flushed since (increments).

Below the backup directory, for each snapshot::

    <cluster>/<snapshot>/snapshot/<keyspace>/<table>/           every table file at the snapshot's moment
    <cluster>/<snapshot>/increments/<mark>/<keyspace>/<table>/  what was flushed since, up to that mark

Files are real copies: a backup that shares its disk blocks with the data is lost with them.
"""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec
import yaml

from eventstore.config import Settings
from eventstore.errors import LocalStackError, QueryError, RefusedError
from eventstore.events.cells import TableName
from eventstore.local import process
from eventstore.local.cassandra import CassandraNode
from eventstore.local.jolokia import STORAGE, Jolokia
from eventstore.local.layout import lay_out
from eventstore.tenancy import Cluster, Registry

KEEPING: Final = "keeping.json"
"""Beside a snapshot: the server process that has kept every flushed file since."""
CONTENTS: Final = "TOC.txt"
"""The last component of a table file to be written: it lists the others."""


@dataclass(frozen=True, slots=True)
class NodeBackups:
    """Backups of one cluster of the embedded stack.

    Every method raises LocalStackError if the node does not do as it is asked.
    """

    node: CassandraNode
    keyspace: str
    directory: Path
    """Of all this cluster's backups."""

    def take_snapshot(self, name: str) -> Path:
        """Flush, link every table file as it is at this moment, and copy them here. Gives where they are."""
        self._management.execute(
            STORAGE,
            "takeSnapshot(java.lang.String,java.util.Map,[Ljava.lang.String;)",
            [name, {}, [f"{self.keyspace}.{table}" for table in TableName]],
        )
        target = self._place(self.directory / name / "snapshot")
        with _whole(target) as part:
            for table in TableName:
                _copy(complete(self._files(table) / "snapshots" / name), part / table)
        self._management.execute(
            STORAGE, "clearSnapshot(java.lang.String,[Ljava.lang.String;)", [name, [self.keyspace]]
        )
        self._drop_increments(target)
        if (keeping := self._keeping()) is not None:
            (self.directory / name / KEEPING).write_bytes(msgspec.json.encode(keeping))
        return target

    def take_increment(self, snapshot: str, name: str) -> Path:
        """Flush, and move here what was flushed since the last time. Gives where it is.

        Raises:
            QueryError: there is no such snapshot.
            RefusedError: not everything that was flushed since the snapshot was kept.
        """
        self.check_unbroken(snapshot)
        self._management.execute(
            STORAGE, "forceKeyspaceFlush(java.lang.String,[Ljava.lang.String;)", [self.keyspace, [*TableName]]
        )
        target = self._place(self.directory / snapshot / "increments" / name)
        with _whole(target) as part:
            taken = [
                path for table in TableName for path in _copy(complete(self._files(table) / "backups"), part / table)
            ]
        for path in taken:
            path.unlink()
        return target

    def snapshot_place(self, snapshot: str) -> Path:
        """Where a snapshot's files are.

        Raises:
            QueryError: there is no such snapshot.
        """
        place = self._place(self.directory / snapshot / "snapshot")
        if not place.is_dir():
            there = sorted(path.name for path in self.directory.glob("*") if (path / "snapshot").is_dir())
            raise QueryError(
                f"snapshot: expected one of {', '.join(there) or 'none'} in {self.directory}, got {snapshot!r}; "
                "see `eventstore marks list`, or set EVENTSTORE_LOCAL__BACKUP_DIR"
            )
        return place

    def increments(self, snapshot: str, needed: Iterable[str]) -> list[Path]:
        """Where the files of all increments of a snapshot are.

        Those beyond the needed ones do no harm: their rows are rows of events. One that was cut short after its files had
        been moved away from the node has no other copy of them.

        Raises:
            RefusedError: a needed one is not there: its rows would be in neither the backup nor the replay.
        """
        below = self.directory / snapshot / "increments"
        if missing := [name for name in needed if not self._place(below / name).is_dir()]:
            raise RefusedError(
                f"{below}: expected increment {', '.join(missing)}, which a mark names, found none; bring it back, or restore "
                "an older mark and replay from that"
            )
        return sorted(place for path in below.glob("*") if (place := self._place(path)).is_dir())

    def load(self, place: Path) -> None:
        """Have the running node take in every row of these files; rows it has already stay as they are."""
        for table in TableName:
            if any(complete(place / table)):
                # the loader takes the names of keyspace and table from the last two directories
                self._management.execute(STORAGE, "bulkLoad", [str(place / table)])

    @property
    def _management(self) -> Jolokia:
        if self.node.management_port is None:
            raise LocalStackError(f"{self.node.name}: expected a node with a management port, it has none")
        return Jolokia(self.node.name, self.node.address, self.node.management_port)

    def _place(self, below: Path) -> Path:
        """The directory that has one for each table."""
        return (below / self.keyspace).resolve()

    def _files(self, table: TableName) -> Path:
        """The node's directory of a table; one that was dropped and created again leaves its old one behind."""
        there = (self.node.data / "data" / self.keyspace).glob(f"{table}-*")
        # the name ends in the table's id, a UUID with the time of its creation
        return max(there, key=lambda path: UUID(path.name.rpartition("-")[2]).time)

    def _keeping(self) -> process.Process | None:
        """The running server, if it keeps every flushed file."""
        settings = yaml.safe_load((self.node.configuration / "cassandra.yaml").read_text("utf-8"))
        return process.find(self.node.directory) if settings["incremental_backups"] else None

    def check_unbroken(self, snapshot: str) -> None:
        """A server that ran without keeping files, even for a while, has flushed rows that no increment holds.

        Raises:
            QueryError: there is no such snapshot.
            RefusedError: not everything that was flushed since the snapshot was kept.
        """
        self.snapshot_place(snapshot)
        noted = self.directory / snapshot / KEEPING
        then = msgspec.json.decode(noted.read_bytes(), type=process.Process) if noted.exists() else None
        if then is None or then != self._keeping():
            raise RefusedError(
                f"{self.node.name}: expected the server that kept its flushed files since snapshot {snapshot}, found "
                f"{'another one' if then else 'one that did not'}; set EVENTSTORE_LOCAL__INCREMENTAL_BACKUPS=true, restart "
                "it if it runs without, and take a new snapshot"
            )

    def _drop_increments(self, snapshot: Path) -> None:
        """What the snapshot holds need not be kept as an increment too."""
        for table in TableName:
            for path in (self._files(table) / "backups").glob("*"):
                if (snapshot / table / path.name).exists():
                    path.unlink()


def node_backups(settings: Settings, registry: Registry, cluster: Cluster) -> NodeBackups:
    """Backups of a cluster that the embedded stack runs."""
    node = lay_out(settings, registry.clusters.values()).nodes[cluster.name]
    return NodeBackups(node, cluster.keyspace, settings.local.backup_dir.resolve() / cluster.name)


def complete(directory: Path) -> Iterator[Path]:
    """The components of every table file that is whole: a flush under way has linked some of its components only."""
    for contents in sorted(directory.glob(f"*-{CONTENTS}")):
        stem = contents.name.removesuffix(CONTENTS)
        parts = [directory / f"{stem}{component}" for component in contents.read_text("utf-8").split()]
        if all(part.exists() for part in parts):
            yield from parts


def _copy(files: Iterable[Path], to: Path) -> list[Path]:
    copied = list(files)
    to.mkdir()
    for path in copied:
        shutil.copy2(path, to / path.name)
    return copied


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A directory to fill beside the target; it takes the target's place once it is full."""
    part = target.with_name(f"{target.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        part.rename(target)
    except OSError as error:
        raise LocalStackError(
            f"{target}: expected to copy a backup there, got {error.strerror}: {error.filename}; make room or set "
            "EVENTSTORE_LOCAL__BACKUP_DIR, then back up again under another name"
        ) from error
