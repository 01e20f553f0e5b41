"""What an operator is told when a server does not let us in, played by a server that says just that."""

import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from eventstore.errors import PermanentStoreError, StoreError, TransientStoreError
from eventstore.store.session import close, connect
from eventstore.tenancy import Cluster, Credentials
from tests.builders import cluster

pytestmark = pytest.mark.unit

ERROR, STARTUP, AUTHENTICATE, OPTIONS, SUPPORTED, AUTH_RESPONSE = 0x00, 0x01, 0x03, 0x05, 0x06, 0x0F
BAD_CREDENTIALS, OVERLOADED = 0x0100, 0x1001


def text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()


def error(code: int, message: str) -> tuple[int, bytes]:
    return ERROR, struct.pack(">i", code) + text(message)


def options(**values: str) -> tuple[int, bytes]:
    entries = (text(name) + struct.pack(">H", 1) + text(value) for name, value in values.items())
    return SUPPORTED, struct.pack(">H", len(values)) + b"".join(entries)


Answer = Callable[[int], tuple[int, bytes]]
"""An answer's opcode and body to a request's opcode."""


def asks_for_a_password(refusal: str) -> Answer:
    answers = {
        OPTIONS: options(CQL_VERSION="3.4.7", COMPRESSION="lz4"),
        STARTUP: (AUTHENTICATE, text("org.apache.cassandra.auth.PasswordAuthenticator")),
        AUTH_RESPONSE: error(BAD_CREDENTIALS, refusal),
    }
    return lambda opcode: answers[opcode]


@contextmanager
def serving(answer: Answer) -> Iterator[Cluster]:
    """A cluster of one node that speaks the CQL protocol's frames (version 4) and answers as told."""

    class Connection(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while header := self.rfile.read(9):
                _, _, stream, opcode, length = struct.unpack(">BBhBi", header)
                self.rfile.read(length)
                kind, body = answer(opcode)
                self.wfile.write(struct.pack(">BBhBi", 0x84, 0, stream, kind, len(body)) + body)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Connection) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield cluster("c15", port=server.server_address[1])
        server.shutdown()


def refused(of: Cluster) -> StoreError:
    with pytest.raises(StoreError) as caught:
        close(connect(of))
    return caught.value


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> Credentials:
    monkeypatch.setenv("EVENTSTORE_TEST_PASSWORD", "wrong")
    return Credentials("eventstore", password_env="EVENTSTORE_TEST_PASSWORD")


def test_a_wrong_password_is_permanent_and_told_with_its_place(password: Credentials) -> None:
    with serving(asks_for_a_password("Provided username eventstore and/or password are incorrect")) as server:
        told = refused(replace(server, credentials=password))
    assert isinstance(told, PermanentStoreError)
    assert "Provided username eventstore and/or password are incorrect" in str(told)
    assert str(told).endswith("mend username, password_env or password_file of clusters.c15 in the registry")
    assert "\n" not in str(told)


def test_no_password_where_one_is_asked_for_is_permanent() -> None:
    with serving(asks_for_a_password("")) as server:
        told = refused(server)
    assert isinstance(told, PermanentStoreError)
    assert "Remote end requires authentication" in str(told)


def test_a_node_that_cannot_read_its_roles_is_transient(password: Credentials) -> None:
    refusal = "Unable to perform authentication: Cannot achieve consistency level QUORUM"
    with serving(asks_for_a_password(refusal)) as server:
        assert isinstance(refused(replace(server, credentials=password)), TransientStoreError)


def test_a_driver_that_cannot_connect_writes_no_stack_trace(
    password: Credentials, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(asks_for_a_password("no")) as server:
        refused(replace(server, credentials=password))
    assert [record for record in caplog.records if record.exc_info] == []
    assert all("Traceback" not in record.getMessage() for record in caplog.records)


def test_a_node_that_is_overloaded_is_transient() -> None:
    known = options(CQL_VERSION="3.4.7", COMPRESSION="lz4")
    with serving(lambda opcode: known if opcode == OPTIONS else error(OVERLOADED, "busy")) as server:
        assert isinstance(refused(server), TransientStoreError)


def test_a_name_that_cannot_be_resolved_is_told_with_its_place() -> None:
    told = refused(cluster("c15", contact_points=("nowhere.invalid",)))
    assert "contact_points and port of clusters.c15 in the registry" in str(told)
