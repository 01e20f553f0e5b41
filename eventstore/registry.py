"""The tenant registry as a file: read, watched, and put in force again when it has changed for the better."""

import asyncio
import hashlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from eventstore.clock import now_ms
from eventstore.errors import ConfigurationError, RegistryError
from eventstore.metrics import REGISTRY_RELOAD_FAILURES, REGISTRY_RELOADS
from eventstore.tenancy import Registry
from eventstore.tenancy.document import parse_registry
from eventstore.tenancy.succession import succession_problems

log = structlog.get_logger(__name__)

POLL_SECONDS: Final = 2.0
SETTLE_SECONDS: Final = 0.2
"""A changed file must stay the same this long: an editor that saves in place shows half a document in between."""

Contents = Mapping[Path, bytes | None]
"""The registry and its event schemas as they were read; None for a file that could not be."""


def load_registry(path: Path) -> Registry:
    """The registry in a file.

    Raises:
        ConfigurationError: the file cannot be read.
        RegistryError: every fault of the document.
    """
    return _read(path).registry()


class RegistryFile:
    """A registry that follows its file. An edit that is invalid, or would lose sight of rows, changes nothing.

    Raises:
        ConfigurationError: the file cannot be read.
        RegistryError: every fault of the document.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        first = _read(path)
        self._current = first.registry()
        self._watched = tuple(first.contents)
        self._in_force = self._seen = _fingerprint(first.contents)
        self._subscribers: list[Callable[[Registry], None]] = []

    @property
    def current(self) -> Registry:
        return self._current

    def subscribe(self, callback: Callable[[Registry], None]) -> None:
        """Call back with every registry put in force from now on, on the thread that refreshes."""
        self._subscribers.append(callback)

    def refresh(self, at_ms: int | None = None) -> bool:
        """Put the file in force if it has changed and may follow; whether it was put in force.

        Args:
            at_ms: the time of the edit in milliseconds since the epoch; default: now.
        """
        return self._consider(_read(self.path), now_ms() if at_ms is None else at_ms)

    async def watch(self, interval: float = POLL_SECONDS) -> None:
        """Refresh for ever: every `interval` seconds if a file has changed, and at once on SIGHUP."""
        with _hangups() as hangup:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(hangup.wait(), interval)
                hangup.clear()
                if await self._settled():
                    self._consider(await asyncio.to_thread(_read, self.path), now_ms())

    async def _settled(self) -> bool:
        """Whether the files have changed; waits until they stay the same."""
        before, now = self._seen, await asyncio.to_thread(self._fingerprint_now)
        if now == before:
            return False
        while now != before:
            await asyncio.sleep(SETTLE_SECONDS)
            before, now = now, await asyncio.to_thread(self._fingerprint_now)
        return True

    def _fingerprint_now(self) -> bytes:
        return _fingerprint({path: _bytes(path) for path in self._watched})

    def _consider(self, reading: "_Reading", at_ms: int) -> bool:
        seen = _fingerprint(reading.contents)
        if seen == self._seen:
            return False
        self._watched, self._seen = tuple(reading.contents), seen
        if seen == self._in_force:  # an edit was taken back
            return False
        try:
            following = reading.registry()
            self._check_succession(following, at_ms)
        except ConfigurationError as error:
            REGISTRY_RELOAD_FAILURES.inc()
            log.error("registry edit refused, the old one stays in force", error=str(error))  # noqa: TRY400 — no trace
            return False
        self._current, self._in_force = following, seen
        REGISTRY_RELOADS.inc()
        log.info("registry put in force", path=str(self.path), tenants=len(following.tenants))
        for callback in self._subscribers:
            callback(following)
        return True

    def _check_succession(self, following: Registry, at_ms: int) -> None:
        if problems := succession_problems(self._current, following, at_ms):
            raise RegistryError(str(self.path), problems)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One attempt to read a registry: the very bytes that were read, and what they mean."""

    contents: Contents
    outcome: Registry | ConfigurationError

    def registry(self) -> Registry:
        if isinstance(self.outcome, ConfigurationError):
            raise self.outcome
        return self.outcome


def _read(path: Path) -> _Reading:
    contents: dict[Path, bytes | None] = {}

    def read(file: Path) -> bytes:
        contents[file] = None
        contents[file] = content = file.read_bytes()
        return content

    try:
        document = read(path)
        registry = parse_registry(
            document, lambda name: read(path.parent / name), source=str(path), directory=path.parent
        )
    except RegistryError as error:
        return _Reading(contents, error)
    except OSError as error:
        told = f"registry: expected a readable file at {path}, got {error.strerror}; mend EVENTSTORE_REGISTRY"
        return _Reading(contents, ConfigurationError(told))
    return _Reading(contents, registry)


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _fingerprint(contents: Contents) -> bytes:
    digest = hashlib.sha256()
    for path, content in contents.items():
        digest.update(f"{path}\0{-1 if content is None else len(content)}\0".encode())
        digest.update(content or b"")
    return digest.digest()


@contextmanager
def _hangups() -> Iterator[asyncio.Event]:
    """An event that SIGHUP sets; only the main thread can hear signals."""
    hangup = asyncio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield hangup
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    try:
        yield hangup
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
