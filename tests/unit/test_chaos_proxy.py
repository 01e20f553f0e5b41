"""The proxy that stands between workers and servers must break what it says, and nothing else."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread
from time import monotonic

import pytest

from tests.chaos.proxy import Proxy, running_proxy
from tests.waiting import until

pytestmark = pytest.mark.unit

SHORT = 0.2
LONG = 10.0


@dataclass(slots=True)
class Echo:
    """A server that sends back what it gets."""

    listener: socket.socket
    served: list[socket.socket] = field(default_factory=list)
    ended: int = 0
    """Connections whose other end has closed or reset them."""

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()
        return host, port

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.served.append(connection)
            Thread(target=self.echo, args=(connection,), daemon=True).start()

    def echo(self, connection: socket.socket) -> None:
        try:
            while piece := connection.recv(65_536):
                connection.sendall(piece)
        except OSError:
            pass
        self.ended += 1
        connection.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Echo(listener)
        thread = Thread(target=server.accept, daemon=True)
        thread.start()
        yield server
        with suppress(OSError):  # the test has closed it
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(LONG)
    for connection in server.served:
        connection.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with running_proxy(echo.address) as running:
        yield running


@contextmanager
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(proxy.address, timeout=LONG) as connection:
        yield connection


def knock(proxy: Proxy) -> None:
    with client(proxy) as connection:
        connection.recv(1)


def exchange(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return receive(connection, len(data))


def receive(connection: socket.socket, size: int) -> bytes:
    """So many bytes, or fewer if the connection ends."""
    found = b""
    while len(found) < size and (piece := connection.recv(size - len(found))):
        found += piece
    return found


def test_everything_passes_in_fair_weather(proxy: Proxy) -> None:
    data = bytes(range(256)) * 10_000
    with client(proxy) as connection:
        sender = Thread(target=connection.sendall, args=(data,))
        sender.start()
        assert receive(connection, len(data)) == data
        sender.join()


def test_what_is_slow_comes_whole_in_order_and_late(proxy: Proxy) -> None:
    proxy.slow(0.05, jitter=0.05)
    with client(proxy) as connection:
        for number in range(5):
            begun = monotonic()
            assert exchange(connection, b"%d" % number) == b"%d" % number
            assert monotonic() - begun >= 0.1  # each way


def test_a_black_hole_keeps_the_connection_and_gives_everything_back_when_it_ends(proxy: Proxy, echo: Echo) -> None:
    with client(proxy) as connection:
        assert exchange(connection, b"before") == b"before"
        proxy.hold()
        connection.settimeout(SHORT)
        connection.sendall(b"held")
        with pytest.raises(TimeoutError):
            connection.recv(4)
        assert echo.ended == 0
        connection.settimeout(LONG)
        proxy.heal()
        assert receive(connection, 4) == b"held"


def test_a_connection_made_into_a_black_hole_hears_nothing(proxy: Proxy) -> None:
    proxy.hold()
    with client(proxy) as connection:
        connection.settimeout(SHORT)
        with pytest.raises(TimeoutError):
            exchange(connection, b"hello")


def test_a_reset_is_heard_on_both_sides_and_the_next_connection_works(proxy: Proxy, echo: Echo) -> None:
    with client(proxy) as connection:
        exchange(connection, b"hello")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    until(lambda: echo.ended == 1, "the server to hear of it")
    with client(proxy) as connection:
        assert exchange(connection, b"again") == b"again"


def test_a_half_open_connection_swallows_what_is_sent_and_its_client_is_not_told(proxy: Proxy, echo: Echo) -> None:
    with client(proxy) as connection:
        exchange(connection, b"hello")
        proxy.half_open()
        until(lambda: echo.ended == 1, "the server to lose it")
        connection.settimeout(SHORT)
        with pytest.raises(TimeoutError):
            exchange(connection, b"anybody there?")
    with client(proxy) as connection:
        assert exchange(connection, b"again") == b"again"


def test_a_connection_is_cut_after_exactly_so_many_bytes(proxy: Proxy) -> None:
    proxy.cut(after=10)
    with client(proxy) as connection:
        connection.sendall(b"0123456789abcdef")
        assert receive(connection, 10) == b"0123456789"
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_who_is_left_hears_late_of_a_slow_close(proxy: Proxy, echo: Echo) -> None:
    proxy.close_slowly(SHORT)
    with ExitStack() as open_connection:
        connection = open_connection.enter_context(client(proxy))
        exchange(connection, b"hello")
        closed = monotonic()
    until(lambda: echo.ended == 1, "the server to hear of it")
    assert monotonic() - closed >= SHORT


def test_a_disabled_proxy_refuses_until_it_is_enabled(proxy: Proxy) -> None:
    with client(proxy) as connection:
        exchange(connection, b"hello")
        proxy.disable()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(proxy.address, timeout=LONG)
    proxy.enable()
    with client(proxy) as connection:
        assert exchange(connection, b"again") == b"again"
    assert proxy.accepted == 2


def test_a_target_that_is_away_resets_its_clients(proxy: Proxy, echo: Echo) -> None:
    echo.listener.shutdown(socket.SHUT_RDWR)
    echo.listener.close()
    with pytest.raises(ConnectionResetError):  # while connecting, or just after
        knock(proxy)
