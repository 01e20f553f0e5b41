"""Whether a server really answers: one request of its own protocol, not just an open port."""

import logging
import socket
import struct

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

_TIMEOUT = 2.0
_STARTUP = 0x01
_ANSWERS = {0x02, 0x03}
"""READY, or AUTHENTICATE of a server that asks for a password: both serve CQL."""


def speaks_cql(address: str, port: int) -> bool:
    """Whether a CQL server accepts a session there (protocol v4 STARTUP, as every driver begins)."""
    body = struct.pack(">H", 1) + _text("CQL_VERSION") + _text("3.0.0")
    try:
        with socket.create_connection((address, port), timeout=_TIMEOUT) as connection:
            connection.sendall(struct.pack(">BBhBi", 0x04, 0, 0, _STARTUP, len(body)) + body)
            header = connection.recv(9, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(header) == 9 and header[4] in _ANSWERS  # noqa: PLR2004 — a frame header of protocol v4


def speaks_kafka(address: str, port: int) -> bool:
    """Whether a broker there answers a metadata request and has itself in the answer."""
    if not _is_open(address, port):  # spares librdkafka its reconnect back-off and its log lines
        return False
    client = AdminClient({"bootstrap.servers": f"{address}:{port}", "logger": logging.getLogger("librdkafka")})
    try:
        return bool(client.list_topics(timeout=_TIMEOUT).brokers)
    except KafkaException:
        return False


def _is_open(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=_TIMEOUT).close()
    except OSError:
        return False
    return True


def _text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()
