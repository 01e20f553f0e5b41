"""The embedded stack as a whole: which servers the settings and the registry ask for, and their life."""

import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from threading import Event

from eventstore.config import Settings
from eventstore.errors import ConfigurationError, LocalStackError
from eventstore.local import host, process
from eventstore.local.artifacts import Cache, default_cache
from eventstore.local.layout import KAFKA, is_embedded, lay_out
from eventstore.local.lifecycle import INITIALISED, disk_usage, halt_all, locked, prepare, running
from eventstore.local.lockfile import load_lock
from eventstore.local.progress import SILENT, Progress
from eventstore.local.server import Server
from eventstore.tenancy import Cluster, Registry

_POLL = 0.1


class State(StrEnum):
    RUNNING = "running"
    STARTING = "starting"
    """Our process, but it does not answer (yet)."""
    STOPPED = "stopped"
    LEFT_OVER = "left over"
    """Our process, of a cluster that the registry no longer has; `down` stops it too."""
    EXTERNAL = "external"
    """Not ours to start: the settings or the registry name an address elsewhere."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    name: str
    address: str
    state: State
    pid: int | None = None
    version: str | None = None
    memory: int = 0
    """Resident bytes."""
    data_size: int = 0
    """Bytes on disk."""


class Stack:
    """Kafka and one Cassandra for each cluster of the registry that lives on a loopback address.

    `clusters` restricts which of them are started; none means all.

    Raises:
        ConfigurationError: `clusters` names one that the registry has not.
    """

    def __init__(self, settings: Settings, registry: Registry, clusters: Collection[str] = ()) -> None:
        if unknown := sorted(set(clusters) - set(registry.clusters)):
            raise ConfigurationError(
                f"--clusters: expected names from the registry ({', '.join(registry.clusters)}), got {', '.join(unknown)}"
            )
        self._local = settings.local
        self._directory = settings.local.data_dir.resolve()
        self._lock = load_lock()
        self._listed = {KAFKA, *registry.clusters}
        chosen = [cluster for name, cluster in registry.clusters.items() if not clusters or name in clusters]
        self.servers = lay_out(settings, registry.clusters.values()).servers(cluster.name for cluster in chosen)
        self.external = tuple(self._external(settings, chosen))

    def up(self, progress: Progress = SILENT) -> tuple[ServerStatus, ...]:
        """Start what does not run yet and wait until everything answers. What runs already is left alone.

        Raises:
            LocalStackError: something is in the way; what this call had started is stopped again.
        """
        with locked(self._directory):
            absent = [server for server in self.servers if process.find(server.directory) is None]
            self._check_host(absent)
            cache = Cache(self._local.cache_dir or default_cache(), self._local.maven_repository)
            kinds = {server.distribution for server in absent}
            cache.ensure([artifact for kind in sorted(kinds) for artifact in self._lock[kind].needed_here()], progress)
            self._start_all(absent, cache, progress)
        return self.status()

    def status(self) -> tuple[ServerStatus, ...]:
        """Every server: those elsewhere, ours, and ours that nothing names any more."""
        return (*self.external, *map(self._status, self.servers), *self._left_over())

    def _start_all(self, absent: Collection[Server], cache: Cache, progress: Progress) -> None:
        give_up = Event()
        with ThreadPoolExecutor(max_workers=max(1, len(self.servers))) as pool:
            starts = [
                pool.submit(self._start, server, cache if server in absent else None, give_up, progress)
                for server in self.servers
            ]
            try:
                for done in as_completed(starts):
                    done.result()
            except BaseException:
                give_up.set()
                pool.shutdown(wait=True)
                halt_all([server.directory for server in absent], progress)
                raise

    def _start(self, server: Server, cache: Cache | None, give_up: Event, progress: Progress) -> None:
        offset = server.log.stat().st_size if server.log.exists() else 0
        if cache is not None:
            class_path = tuple(map(cache.path, self._lock[server.distribution].needed_here()))
            prepare(server, class_path, progress)
            progress.server(server.name, "starting")
            process.spawn(server.directory, server.command(class_path))
        self._await(server, offset, give_up)
        (server.directory / INITIALISED).touch()
        progress.server(server.name, "answers")

    def _await(self, server: Server, offset: int, give_up: Event) -> None:
        deadline = time.monotonic() + self._local.start_timeout
        while not server.answers():
            if process.find(server.directory) is None:
                raise LocalStackError(
                    f"{server.name}: expected it to start, it died: {' / '.join(server.complaints(offset))}; "
                    f"see {server.log}, and if its data are damaged: eventstore local reset --yes"
                )
            if time.monotonic() > deadline:
                raise LocalStackError(
                    f"{server.name}: expected an answer on {server.address}:{server.port} within {self._local.start_timeout:g} s, got none; "
                    f"see {server.log}, or raise EVENTSTORE_LOCAL__START_TIMEOUT"
                )
            if give_up.wait(_POLL):
                raise LocalStackError(f"{server.name}: given up, because another server failed")

    def _check_host(self, absent: Collection[Server]) -> None:
        for server in absent:
            host.check_address(server.address)
            for port in (server.port, *server.other_ports):
                host.check_port(server.name, server.address, port, server.port_setting)
        if absent:
            names = ", ".join(server.name for server in absent)
            host.check_memory(sum(server.memory_needed for server in absent), names)

    def _status(self, server: Server) -> ServerStatus:
        found = process.find(server.directory)
        state = State.STOPPED
        if found:
            state = State.RUNNING if server.answers() else State.STARTING
        return ServerStatus(
            server.name, f"{server.address}:{server.port}", state, found.pid if found else None,
            self._lock[server.distribution].version, process.memory(found) if found else 0, disk_usage(server.data),
        )  # fmt: skip

    def _left_over(self) -> Iterator[ServerStatus]:
        for name, found in running(self._directory).items():
            if name not in self._listed:
                size = disk_usage(self._directory / name / "data")
                yield ServerStatus(name, "", State.LEFT_OVER, found.pid, None, process.memory(found), size)

    def _external(self, settings: Settings, clusters: Collection[Cluster]) -> Iterator[ServerStatus]:
        if not any(server.name == KAFKA for server in self.servers):
            yield ServerStatus(KAFKA, settings.kafka.bootstrap_servers, State.EXTERNAL)
        for cluster in clusters:
            if not is_embedded(cluster):
                addresses = ",".join(f"{point}:{cluster.port}" for point in cluster.contact_points)
                yield ServerStatus(cluster.name, addresses, State.EXTERNAL)
