"""Which table files a backup takes, and how it stands if it is cut short."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from eventstore.errors import LocalStackError, QueryError, RefusedError
from eventstore.local import process
from eventstore.local.backup import NodeBackups, complete
from eventstore.local.cassandra import CassandraNode

pytestmark = pytest.mark.unit

PARTS = ("Data.db", "Rows.db", "TOC.txt")


def table_file(directory: Path, generation: int, *, without: str = "") -> list[Path]:
    """A table file of three components, one of them not there yet if it is named."""
    directory.mkdir(parents=True, exist_ok=True)
    made = []
    for part in PARTS:
        path = directory / f"da-{generation}-bti-{part}"
        if part != without:
            path.write_text("\n".join(PARTS) if part == "TOC.txt" else "rows")
            made.append(path)
    return made


class Agent:
    """Answers as the management agent does, and does to the files what the server would."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.on: dict[str, Callable[[list[Any]], object]] = {}
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                agent.asked.append(asked)
                answer: dict[str, Any] = {"status": 200, "value": None}
                try:
                    if work := agent.on.get(asked["operation"].partition("(")[0]):
                        work(asked["arguments"])
                except ValueError as error:
                    answer = {"status": 500, "error": str(error)}
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    @property
    def operations(self) -> list[str]:
        return [asked["operation"].partition("(")[0] for asked in self.asked]


@pytest.fixture
def agent() -> Iterator[Agent]:
    made = Agent()
    thread = Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def backups(tmp_path: Path, agent: Agent) -> NodeBackups:
    node = CassandraNode(
        name="es30", cluster="es30", address="127.0.0.1", port=1, internal_port=2, management_port=agent.port,
        seeds=(), datacenter="dc1", directory=tmp_path / "node", heap_mb=64, incremental_backups=True,
    )  # fmt: skip
    node.configuration.mkdir(parents=True)
    node.write_configuration()
    return NodeBackups(node, "ks", tmp_path / "backup")


@pytest.fixture
def table(backups: NodeBackups) -> Path:
    """The directory of the events; an older one of a table that was dropped lies beside it."""
    keyspace = backups.node.data / "data" / "ks"
    for name in ("latest", "impressions"):
        (keyspace / f"{name}-0ca27510e63311f1a838dd139fd19619").mkdir(parents=True)
    table_file(keyspace / "events-be9bc970e63211f19e601baaf0f42751" / "backups", 1)
    return keyspace / "events-0ca27510e63311f1a838dd139fd19619"


@pytest.fixture
def running(backups: NodeBackups, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """The server process is taken for running under this pid."""

    def run(pid: int) -> None:
        monkeypatch.setattr(process, "find", lambda _: process.Process(pid, 1.0))

    run(1)
    return run


def test_a_table_file_that_is_still_being_linked_is_left_for_the_next_time(tmp_path: Path) -> None:
    whole = table_file(tmp_path, 1)
    table_file(tmp_path, 2, without="TOC.txt")
    table_file(tmp_path, 3, without="Data.db")
    assert sorted(complete(tmp_path)) == sorted(whole)


def test_a_snapshot_is_copied_and_then_cleared_on_the_node(
    backups: NodeBackups, table: Path, agent: Agent, running: object
) -> None:
    def take(arguments: list[Any]) -> None:
        assert arguments == ["s1", {}, ["ks.events", "ks.latest", "ks.impressions"]]
        table_file(table / "snapshots" / "s1", 4)
        table_file(latest / "snapshots" / "s1", 9)

    latest = table.with_name(table.name.replace("events", "latest"))
    table_file(latest / "backups", 4)
    table_file(table / "backups", 4)
    table_file(table / "backups", 5)
    agent.on["takeSnapshot"] = take
    place = backups.take_snapshot("s1")
    for name, generation in (("events", 4), ("latest", 9)):
        assert {path.name for path in (place / name).iterdir()} == {f"da-{generation}-bti-{part}" for part in PARTS}
    assert (place.name, [*(place / "impressions").iterdir()]) == ("ks", [])
    assert agent.operations == ["takeSnapshot", "clearSnapshot"]
    left = {each.name[:6]: {path.name[:4] for path in (each / "backups").iterdir()} for each in (table, latest)}
    assert left == {"events": {"da-5"}, "latest": {"da-4"}}, "what the snapshot holds is no increment"


def test_increments_hold_what_was_flushed_since_the_last_one(
    backups: NodeBackups, table: Path, agent: Agent, running: object
) -> None:
    agent.on["takeSnapshot"] = lambda _: table_file(table / "snapshots" / "s1", 4)
    backups.take_snapshot("s1")
    agent.on["forceKeyspaceFlush"] = lambda _: table_file(table / "backups", 6)
    first = backups.take_increment("s1", "m1")
    agent.on["forceKeyspaceFlush"] = lambda _: table_file(table / "backups", 7)
    second = backups.take_increment("s1", "m2")
    assert {path.name[:4] for path in (first / "events").iterdir()} == {"da-6"}
    assert {path.name[:4] for path in (second / "events").iterdir()} == {"da-7"}
    assert backups.increments("s1", ["m1", "m2"]) == [first, second]


def test_an_increment_without_a_mark_is_loaded_too(
    backups: NodeBackups, table: Path, agent: Agent, running: object
) -> None:
    """Its files were moved away from the node, and then the mark could not be told of it."""
    agent.on["takeSnapshot"] = lambda _: table_file(table / "snapshots" / "s1", 4)
    backups.take_snapshot("s1")
    agent.on["forceKeyspaceFlush"] = lambda _: table_file(table / "backups", 6)
    unnamed = backups.take_increment("s1", "cut-short")
    agent.on["forceKeyspaceFlush"] = lambda _: table_file(table / "backups", 7)
    named = backups.take_increment("s1", "m2")
    assert backups.increments("s1", ["m2"]) == [unnamed, named]


def test_an_increment_that_a_mark_names_and_that_is_gone_refuses_the_restore(
    backups: NodeBackups, table: Path, agent: Agent, running: object
) -> None:
    agent.on["takeSnapshot"] = lambda _: table_file(table / "snapshots" / "s1", 4)
    backups.take_snapshot("s1")
    with pytest.raises(RefusedError, match=r"increments: expected increment m1, which a mark names.*older mark"):
        backups.increments("s1", ["m1"])


def test_an_increment_is_refused_if_the_server_has_not_kept_everything_since_the_snapshot(
    backups: NodeBackups, table: Path, agent: Agent, running: Callable[[int], None]
) -> None:
    agent.on["takeSnapshot"] = lambda _: table_file(table / "snapshots" / "s1", 4)
    backups.take_snapshot("s1")
    running(2)
    with pytest.raises(RefusedError, match=r"since snapshot s1, found another one.*take a new snapshot"):
        backups.take_increment("s1", "m1")


def test_a_snapshot_that_is_cut_short_is_not_taken_for_one(
    backups: NodeBackups, table: Path, agent: Agent, running: object
) -> None:
    agent.on["takeSnapshot"] = lambda _: table_file(table / "snapshots" / "s1", 4)
    (backups.directory).write_text("in the way")
    with pytest.raises(LocalStackError, match=r"EVENTSTORE_LOCAL__BACKUP_DIR"):
        backups.take_snapshot("s1")
    backups.directory.unlink()
    with pytest.raises(QueryError, match=r"expected one of none in .*, got 's1'"):
        backups.snapshot_place("s1")


def test_loading_names_the_directory_and_an_empty_one_is_passed_over(backups: NodeBackups, agent: Agent) -> None:
    place = backups.directory / "s1" / "snapshot" / "ks"
    table_file(place / "events", 1)
    table_file(place / "impressions", 1)
    (place / "latest").mkdir()
    backups.load(place)
    assert [asked["arguments"] for asked in agent.asked] == [[str(place / "events")], [str(place / "impressions")]]


def test_what_the_server_refuses_is_one_line_that_names_its_log(backups: NodeBackups, agent: Agent) -> None:
    def fail(_: list[Any]) -> None:
        raise ValueError("Snapshot s1\n already exists.")

    agent.on["takeSnapshot"] = fail
    with pytest.raises(
        LocalStackError, match=r"^es30: takeSnapshot: .*s1 already exists\.; see `eventstore local logs es30`$"
    ):
        backups.take_snapshot("s1")


def test_a_server_without_an_agent_says_how_to_get_one(backups: NodeBackups, agent: Agent) -> None:
    agent.server.shutdown()
    agent.server.server_close()
    with pytest.raises(LocalStackError, match=r"takeSnapshot: .*`eventstore local down`, then `up`"):
        backups.take_snapshot("s1")
