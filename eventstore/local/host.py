"""What this machine must offer before a server is started: addresses, free ports, memory."""

import ipaddress
import platform
import socket
import textwrap
from contextlib import closing
from pathlib import Path

import psutil

from eventstore.errors import LocalStackError
from eventstore.local.process import MARK


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by a loopback address or as `localhost`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_address(address: str) -> None:
    """Raises LocalStackError if nothing can listen on that loopback address."""
    try:
        _bind(address, 0)
    except OSError as error:
        mend = (
            f"sudo ifconfig lo0 alias {address}" if platform.system() == "Darwin" else f"ip addr add {address}/8 dev lo"
        )
        raise LocalStackError(
            f"address {address}: expected it on the loopback interface, got {error.strerror}; run: {mend}"
        ) from error


def check_port(server: str, address: str, port: int, mend: str) -> None:
    """Raises LocalStackError if somebody listens there already, and says who."""
    try:
        _bind(address, port)
    except OSError as error:
        raise LocalStackError(
            f"{server}: expected port {address}:{port} to be free, found {_listener(address, port)}; stop that, or {mend}"
        ) from error


def check_memory(needed: int, what: str) -> None:
    """Raises LocalStackError if fewer than `needed` bytes can be had without swapping."""
    available = psutil.virtual_memory().available
    if available < needed:
        raise LocalStackError(
            f"memory: expected {needed >> 20} MiB for {what}, found {available >> 20} MiB available; close something, "
            "start fewer with --clusters, or lower EVENTSTORE_LOCAL__CASSANDRA_MEMORY_MB and EVENTSTORE_LOCAL__KAFKA_MEMORY_MB"
        )


def _bind(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a stopped server may linger
        probe.bind((address, port))


def _listener(address: str, port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and _covers(connection.laddr, address, port):
                return _describe(connection.pid)
    except psutil.Error:  # macOS shows other users' sockets to root only
        pass
    return _describe(None)


def _covers(listening: tuple[str, int] | tuple[()], address: str, port: int) -> bool:
    hosts = (address, f"::ffff:{address}", "0.0.0.0", "::")  # noqa: S104 — compared, not bound; a JVM maps IPv4 into IPv6
    return listening in {(host, port) for host in hosts}


def _describe(pid: int | None) -> str:
    if pid is None:
        return "another process (of another user)"
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        return f"process {pid}"
    if home := next((word.removeprefix(MARK) for word in command if word.startswith(MARK)), None):
        return f"process {pid}, a server of the embedded stack in {Path(home).parent}"
    return f"process {pid} ({textwrap.shorten(' '.join(command), 80, placeholder=' …')})"
