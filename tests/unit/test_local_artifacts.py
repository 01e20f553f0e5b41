"""The artifact cache against a real HTTP server that cuts, lies and goes away."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from eventstore.errors import LocalStackError
from eventstore.local.artifacts import ATTEMPTS, Cache
from eventstore.local.lockfile import Artifact, Coordinate, Pin

pytestmark = pytest.mark.unit

CONTENT = bytes(range(256)) * 4_096
"""1 MiB."""
CUT = 300_000


@dataclass
class Repository:
    """What the server holds, how it misbehaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: int = 0
    """How many answers are still to be cut after `CUT` bytes."""
    knows_ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range header of each request."""
    url: str = ""
    server: ThreadingHTTPServer | None = None

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append((request.path, request.headers["Range"]))
        content = self.files.get(request.path.removeprefix("/"))
        if content is None:
            request.send_error(HTTPStatus.NOT_FOUND)
            return
        start = 0
        if self.knows_ranges and (asked := request.headers["Range"]):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        request.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        if self.cuts:
            self.cuts -= 1
            request.wfile.write(content[start : start + CUT])
            request.close_connection = True
        else:
            request.wfile.write(content[start:])


@pytest.fixture
def repository() -> Iterator[Repository]:
    made = Repository()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        made.server = server
        serving = threading.Thread(target=server.serve_forever, args=(0.02,))
        serving.start()
        yield made
        server.shutdown()
        serving.join()


@dataclass
class Received:
    files: int = 0
    expected: int = 0
    received_bytes: int = 0

    def fetching(self, files: int, size: int) -> None:
        self.files, self.expected = files, size

    def received(self, size: int) -> None:
        self.received_bytes += size

    def server(self, name: str, state: str) -> None:
        raise AssertionError("a download starts no server")


def artifact(name: str = "broker", content: bytes = CONTENT) -> Artifact:
    return Artifact(Coordinate("org.example", name, "1.0"), Pin(hashlib.sha256(content).hexdigest(), len(content)))


def cache(directory: Path, repository: Repository) -> Cache:
    return Cache(directory / "cache", repository.url, backoff=0.0)


def test_every_artifact_is_fetched_and_lies_where_maven_would_put_it(tmp_path: Path, repository: Repository) -> None:
    wanted = [artifact(name) for name in ("a", "b", "c")]
    repository.files = {one.coordinate.path: CONTENT for one in wanted}
    progress = Received()
    made = cache(tmp_path, repository)
    made.ensure(wanted, progress)
    assert made.path(wanted[0]) == tmp_path / "cache/org/example/a/1.0/a-1.0.jar"
    assert [made.path(one).read_bytes() for one in wanted] == [CONTENT] * 3
    assert (progress.files, progress.expected, progress.received_bytes) == (3, 3 * len(CONTENT), 3 * len(CONTENT))


def test_a_cut_download_goes_on_where_it_was_cut(tmp_path: Path, repository: Repository) -> None:
    repository.files = {artifact().coordinate.path: CONTENT}
    repository.cuts = 2
    made = cache(tmp_path, repository)
    made.ensure([artifact()])
    assert made.path(artifact()).read_bytes() == CONTENT
    assert [asked for _, asked in repository.asked] == [None, f"bytes={CUT}-", f"bytes={2 * CUT}-"]


def test_a_later_command_goes_on_where_an_interrupted_one_stopped(tmp_path: Path, repository: Repository) -> None:
    large = artifact(content=CONTENT * 9)
    repository.files = {large.coordinate.path: CONTENT * 9}
    repository.cuts = ATTEMPTS
    with pytest.raises(LocalStackError, match="what has come so far is kept"):
        cache(tmp_path, repository).ensure([large])
    repository.asked = []
    made = cache(tmp_path, repository)
    made.ensure([large])
    assert made.path(large).read_bytes() == CONTENT * 9
    assert [asked for _, asked in repository.asked] == [f"bytes={ATTEMPTS * CUT}-"]


def test_a_server_without_ranges_is_asked_from_the_start_again(tmp_path: Path, repository: Repository) -> None:
    repository.files = {artifact().coordinate.path: CONTENT}
    repository.cuts, repository.knows_ranges = 1, False
    made = cache(tmp_path, repository)
    made.ensure([artifact()])
    assert made.path(artifact()).read_bytes() == CONTENT


def test_a_wrong_file_is_refused_and_not_kept(tmp_path: Path, repository: Repository) -> None:
    repository.files = {artifact().coordinate.path: CONTENT[::-1]}
    with pytest.raises(LocalStackError, match=r"org\.example:broker:1\.0: expected 1048576 bytes .* with SHA-256"):
        cache(tmp_path, repository).ensure([artifact()])
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != ".lock"]


def test_one_damaged_answer_is_fetched_again(tmp_path: Path, repository: Repository) -> None:
    made = cache(tmp_path, repository)
    part = made.path(artifact()).with_name(f"broker-1.0.jar.{artifact().pin.sha256[:12]}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[::-1])
    repository.files = {artifact().coordinate.path: CONTENT}
    made.ensure([artifact()])
    assert made.path(artifact()).read_bytes() == CONTENT


def test_a_file_that_the_repository_lacks_is_told_at_once(tmp_path: Path, repository: Repository) -> None:
    with pytest.raises(LocalStackError, match="got HTTP 404; set EVENTSTORE_LOCAL__MAVEN_REPOSITORY"):
        cache(tmp_path, repository).ensure([artifact()])
    assert len(repository.asked) == 1


def test_a_filled_cache_needs_no_network(tmp_path: Path, repository: Repository) -> None:
    repository.files = {artifact().coordinate.path: CONTENT}
    cache(tmp_path, repository).ensure([artifact()])
    unreachable = Cache(tmp_path / "cache", "http://127.0.0.1:1", backoff=0.0)
    unreachable.ensure([artifact()])
    assert unreachable.path(artifact()).read_bytes() == CONTENT


def test_an_empty_cache_without_network_says_to_go_online(tmp_path: Path) -> None:
    with pytest.raises(LocalStackError, match=r"could not reach it \(ConnectError: .*\); go online once"):
        Cache(tmp_path / "cache", "http://127.0.0.1:1", backoff=0.0).ensure([artifact()])


def test_a_damaged_file_in_the_cache_is_replaced(tmp_path: Path, repository: Repository) -> None:
    repository.files = {artifact().coordinate.path: CONTENT}
    made = cache(tmp_path, repository)
    made.ensure([artifact()])
    made.path(artifact()).write_bytes(CONTENT[::-1])
    made.ensure([artifact()])
    assert made.path(artifact()).read_bytes() == CONTENT


def test_two_commands_at_once_fetch_each_file_once(tmp_path: Path, repository: Repository) -> None:
    wanted = [artifact(name) for name in "abcd"]
    repository.files = {one.coordinate.path: CONTENT for one in wanted}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: cache(tmp_path, repository).ensure(wanted), range(2)))
    assert sorted(path for path, _ in repository.asked) == [f"/{one.coordinate.path}" for one in wanted]
