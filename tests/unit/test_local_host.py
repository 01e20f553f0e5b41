"""What is in the way of a server is told before it is started, with who it is and what to do."""

import os
import socket
from collections.abc import Iterator

import pytest

from eventstore.errors import LocalStackError
from eventstore.local import host

pytestmark = pytest.mark.unit


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def test_a_stranger_on_the_port_is_named_with_the_mend(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(
        LocalStackError,
        match=rf"es15: expected port 127\.0\.0\.1:{port} to be free, found process {os.getpid()} \(.+\); stop that, or move",
    ):
        host.check_port("es15", "127.0.0.1", port, "move")


def test_a_stranger_on_all_addresses_is_named_too() -> None:
    with socket.socket() as listening:
        listening.bind(("0.0.0.0", 0))
        listening.listen()
        with pytest.raises(LocalStackError, match=f"found process {os.getpid()} "):
            host.check_port("es15", "127.0.0.1", listening.getsockname()[1], "move")


def test_a_java_server_on_the_port_is_named_though_it_listens_over_ipv6() -> None:
    with socket.socket(socket.AF_INET6) as listening:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(("::ffff:127.0.0.1", 0))
        listening.listen()
        with pytest.raises(LocalStackError, match=f"found process {os.getpid()} "):
            host.check_port("es15", "127.0.0.1", listening.getsockname()[1], "move")


def test_a_free_port_is_in_nobodys_way(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    host.check_port("es15", "127.0.0.1", port, "move")


def test_the_same_port_on_another_loopback_address_is_free(listener: socket.socket) -> None:
    host.check_port("es15", "127.0.0.9", listener.getsockname()[1], "move")


def test_an_address_that_this_machine_lacks_is_told_with_the_mend() -> None:
    with pytest.raises(
        LocalStackError, match=r"address 192\.0\.2\.1: expected it on the loopback interface, .*; run: "
    ):
        host.check_address("192.0.2.1")  # an address for documentation: no machine has it


def test_too_little_memory_is_told_with_the_mend() -> None:
    with pytest.raises(
        LocalStackError, match=r"memory: expected 1073741824 MiB for es15, found .* MiB available; .*--clusters"
    ):
        host.check_memory(2**50, "es15")
    host.check_memory(0, "es15")


@pytest.mark.parametrize(
    ("name", "loopback"),
    [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("db", False)],
)
def test_loopback_is_told_from_elsewhere(name: str, loopback: bool) -> None:  # noqa: FBT001 — a table's column
    assert host.is_loopback(name) is loopback
