"""The artifacts on this machine: fetched in parallel, resumed after a cut, verified, cached for all projects of a user."""

import fcntl
import hashlib
import os
import platform
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import httpx

from eventstore.errors import LocalStackError
from eventstore.local.lockfile import Artifact
from eventstore.local.progress import SILENT, Progress

CONNECTIONS = 8
ATTEMPTS = 5
"""Tries of one file before the fetch is given up; each goes on where the last one was cut."""
TIMEOUT = httpx.Timeout(20.0, connect=10.0)


class CutError(Exception):
    """The download ended early; what came is kept and the next try goes on from there."""


class CorruptError(Exception):
    """A whole file came, and it is not the pinned one."""


def default_cache() -> Path:
    """The user's cache directory for Eventstore."""
    if platform.system() == "Darwin":
        return Path.home() / "Library" / "Caches" / "eventstore"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eventstore"


def default_repository() -> str:
    """The base address of the public Maven repository."""
    import jgo.constants  # noqa: PLC0415 — half a second that only a download should cost

    return str(jgo.constants.MAVEN_CENTRAL_URL)


class Cache:
    """A directory of verified artifacts, laid out like a Maven repository.

    `repository` is the base address to fetch from; by default the public one. `backoff` is the wait in seconds before
    the second try of a file, and grows from there. Several processes may use one cache.
    """

    def __init__(self, directory: Path, repository: str | None = None, *, backoff: float = 0.2) -> None:
        self.directory = directory
        self._repository = repository
        self._backoff = backoff

    def path(self, artifact: Artifact) -> Path:
        return self.directory / artifact.coordinate.path

    def ensure(self, artifacts: Iterable[Artifact], progress: Progress = SILENT) -> None:
        """Have every artifact on disk, verified; fetches what is missing or damaged.

        Raises:
            LocalStackError: the repository cannot be reached, lacks a file or serves a wrong one.
        """
        wanted = tuple(dict.fromkeys(artifacts))  # the servers share some
        if not self._missing(wanted):
            return
        with _locked(self.directory / ".lock"):
            if missing := self._missing(wanted):  # another process may have fetched them meanwhile
                self._fetch_all(missing, progress)

    def _missing(self, artifacts: tuple[Artifact, ...]) -> tuple[Artifact, ...]:
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            sound = pool.map(lambda artifact: _is_sound(self.path(artifact), artifact), artifacts)
            return tuple(artifact for artifact, good in zip(artifacts, sound, strict=True) if not good)

    def _fetch_all(self, artifacts: tuple[Artifact, ...], progress: Progress) -> None:
        base = (self._repository or default_repository()).rstrip("/")
        progress.fetching(len(artifacts), sum(artifact.pin.size for artifact in artifacts))
        largest_first = sorted(artifacts, key=lambda artifact: -artifact.pin.size)
        with httpx.Client(timeout=TIMEOUT, follow_redirects=True) as client, ThreadPoolExecutor(CONNECTIONS) as pool:
            fetches = [pool.submit(self._fetch, client, base, artifact, progress) for artifact in largest_first]
            try:
                for fetch in fetches:
                    fetch.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _fetch(self, client: httpx.Client, base: str, artifact: Artifact, progress: Progress) -> None:
        target = self.path(artifact)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.{artifact.pin.sha256[:12]}.part")
        failure: Exception = CutError()
        for attempt in range(ATTEMPTS):
            time.sleep(self._backoff * (2**attempt - 1))
            try:
                _download(client, f"{base}/{artifact.coordinate.path}", part, artifact, progress)
            except (httpx.HTTPError, CutError, CorruptError) as error:
                failure = error
                if _is_final(error):
                    break
            else:
                part.replace(target)
                return
        raise LocalStackError(self._explain(artifact, failure)) from failure

    def _explain(self, artifact: Artifact, failure: Exception) -> str:
        expected = f"{artifact.coordinate}: expected {artifact.pin.size} bytes from the Maven repository"
        match failure:
            case CorruptError():
                return f"{expected} with SHA-256 {artifact.pin.sha256}, got others {ATTEMPTS} times: something on the way changes downloads; try another network or repository (EVENTSTORE_LOCAL__MAVEN_REPOSITORY)"
            case httpx.HTTPStatusError():
                return f"{expected}, got HTTP {failure.response.status_code}; set EVENTSTORE_LOCAL__MAVEN_REPOSITORY to a repository that has it"
            case _:
                return f"{expected}, could not reach it ({type(failure).__name__}: {failure}); go online once (or behind a proxy set HTTPS_PROXY), what has come so far is kept in {self.directory}"


def _download(client: httpx.Client, url: str, part: Path, artifact: Artifact, progress: Progress) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have < artifact.pin.size:
        resume = {"Range": f"bytes={have}-"} if have else {}
        with client.stream("GET", url, headers={"Accept-Encoding": "identity", **resume}) as response:
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink()
            response.raise_for_status()
            resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT
            progress.received(have if resumed else 0)
            with part.open("ab" if resumed else "wb") as file:
                for chunk in response.iter_raw():
                    file.write(chunk)
                    progress.received(len(chunk))
    if part.stat().st_size < artifact.pin.size:
        raise CutError("the connection was cut")
    if not _is_sound(part, artifact):
        part.unlink()
        raise CorruptError


def _is_final(error: Exception) -> bool:
    """Whether another try cannot help: the repository answered, and its answer is no."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in {
        HTTPStatus.NOT_FOUND, HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED,
    }  # fmt: skip


def _is_sound(path: Path, artifact: Artifact) -> bool:
    if not path.is_file() or path.stat().st_size != artifact.pin.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == artifact.pin.sha256


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
