"""A CQL server for tests (protocol v4): what a real one does only when it breaks, or only with shards, and a bottomless sink.

A `FakeRing` has nodes; each answers the driver and the lane well enough that both connect. Every write it gets is handed
to the node's `on_write`, which answers it at once, later, wrongly or never. As a sink for benchmarks, which counts rows:

    python -m tests.fake_cql --port 9142
"""

import argparse
import asyncio
import hashlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, cast
from uuid import UUID, uuid4

import uvloop

from eventstore.store.lane.frames import HEADER, Opcode
from tests.cql_values import (
    BOOLEAN,
    INET,
    MAP,
    SET,
    TEXT,
    UUID_,
    Reader,
    integer,
    page_result,
    prepared_insert,
    rows_result,
    short,
    text,
)

QUERY: Final = 0x07
REGISTER: Final = 0x0B
VOID: Final = integer(1)
INVALID: Final = 0x2200
BAD_CREDENTIALS: Final = 0x0100
UNPREPARED: Final = 0x2500
DATACENTER: Final = "dc1"
KEYSPACE: Final = "eventstore"
MURMUR3: Final = "org.apache.cassandra.dht.Murmur3Partitioner"
IGNORED_BITS: Final = 12
RATE_LIMITED: Final = 0xF0F0
"""The code that a node with `extensions` announces for rate limits, and uses with those who have agreed to it."""


@dataclass(slots=True, eq=False)
class Write:
    """An EXECUTE or BATCH that a node got, a read or a write, and the answer it still owes."""

    connection: "Connection"
    stream: int
    opcode: int
    body: bytes

    @property
    def shard(self) -> int:
        return self.connection.shard

    def rows(self) -> list[list[bytes]]:
        """The cells of each row."""
        return [cells for _, cells in self._statements()]

    def statement_ids(self) -> set[bytes]:
        return {statement for statement, _ in self._statements()}

    def acknowledge(self, flags: int = 0, before: bytes = b"") -> None:
        """Done; `before` is what the flags put before the body."""
        self.connection.answer(self.stream, Opcode.RESULT, before + VOID, flags)

    def give(
        self, columns: int, rows: Sequence[Sequence[bytes | None]], state: bytes | None = None,
        flags: int = 0, before: bytes = b"",
    ) -> None:  # fmt: skip
        """A page of rows; behind `state` there are more. `before` is what the flags put before the body."""
        self.connection.answer(self.stream, Opcode.RESULT, before + page_result(columns, rows, state), flags)

    def asks_behind(self) -> bytes | None:
        """The paging state that a read goes on from."""
        reader = Reader(self.body)
        reader.take(reader.short() + 2)
        flags = reader.take(1)[0]
        reader.cells()
        reader.take(4)  # page size
        return reader.take(int.from_bytes(reader.take(4), "big")) if flags & 0x08 else None

    def refuse(self, code: int, message: str = "as the test asked for", more: bytes = b"") -> None:
        self.connection.answer(self.stream, Opcode.ERROR, integer(code) + text(message) + more)

    def _statements(self) -> Iterator[tuple[bytes, list[bytes]]]:
        reader = Reader(self.body)
        if self.opcode == Opcode.EXECUTE:
            statement = reader.take(reader.short())
            reader.take(3)  # consistency, flags
            yield statement, reader.cells()
            return
        reader.take(1)  # kind of batch
        for _ in range(reader.short()):
            reader.take(1)  # kind of statement
            yield reader.take(reader.short()), reader.cells()


def acknowledge(write: Write) -> None:
    write.acknowledge()


class Connection(asyncio.Protocol):
    def __init__(self, node: "FakeNode", by_source_port: bool) -> None:  # noqa: FBT001 — which of two listening ports
        self.node = node
        self.shard = 0
        self.startup: dict[str, str] = {}
        self._by_source_port = by_source_port
        self._rest = b""
        self._out: list[bytes] = []
        self._reading = False
        self.transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        node = self.node
        if node.shards and self._by_source_port:
            self.shard = transport.get_extra_info("peername")[1] % node.shards
        elif node.shards:
            self.shard = next(node.turns) % node.shards
        node.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.node.connections.discard(self)

    def answer(self, stream: int, opcode: int, body: bytes, flags: int = 0) -> None:
        self._out.append(HEADER.pack(0x84, flags, stream, opcode, len(body)) + body)
        if not self._reading:
            self._send()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        if self.node.held:
            self._rest = data
            return
        offset, end = 0, len(data)
        self._reading = True
        while end - offset >= HEADER.size:
            _, _, stream, opcode, length = HEADER.unpack_from(data, offset)
            if offset + HEADER.size + length > end:
                break
            offset += HEADER.size + length
            self._request(stream, opcode, data[offset - length : offset])
        self._rest = data[offset:]
        self._reading = False
        self._send()

    def _send(self) -> None:
        if self._out and not self.transport.is_closing():
            self.transport.write(b"".join(self._out))
        self._out.clear()

    def _request(self, stream: int, opcode: int, body: bytes) -> None:
        if opcode in (Opcode.EXECUTE, Opcode.BATCH):
            self._write(stream, opcode, body)
        elif not self.node.deaf:
            self.answer(stream, *self._control(opcode, body))

    def _write(self, stream: int, opcode: int, body: bytes) -> None:
        node = self.node
        if node.sink:
            node.rows += 1 if opcode == Opcode.EXECUTE else int.from_bytes(body[1:3], "big")
            self._out.append(HEADER.pack(0x84, 0, stream, Opcode.RESULT, 4) + VOID)
            return
        write = Write(self, stream, opcode, body)
        unknown = write.statement_ids() - node.prepared
        if unknown:
            node.unprepared += 1
            statement = unknown.pop()
            write.refuse(UNPREPARED, "prepare it", short(len(statement)) + statement)
            return
        node.writes.append(write)
        node.on_write(write)

    def _control(self, opcode: int, body: bytes) -> tuple[int, bytes]:
        answers: dict[int, Callable[[bytes], tuple[int, bytes]]] = {
            Opcode.OPTIONS: lambda _: (Opcode.SUPPORTED, self.node.supported(self.shard)),
            Opcode.STARTUP: self._start_up,
            Opcode.AUTH_RESPONSE: self.node.check_login,
            REGISTER: lambda _: (Opcode.READY, b""),
            Opcode.PREPARE: lambda body: self.node.prepare(_long_string(body)),
            QUERY: lambda body: self.node.query(_long_string(body)),
        }
        return answers[opcode](body)

    def _start_up(self, body: bytes) -> tuple[int, bytes]:
        self.startup = Reader(body).string_map()
        if self.node.login is None:
            return Opcode.READY, b""
        return Opcode.AUTHENTICATE, text("org.apache.cassandra.auth.PasswordAuthenticator")


def _long_string(body: bytes) -> str:
    return body[4 : 4 + int.from_bytes(body[:4], "big")].decode()


@dataclass(eq=False)
class FakeNode:
    address: str
    ring: "FakeRing"
    tokens: Sequence[int]
    shards: int = 0
    """0: a node without shards, like Cassandra's."""
    shard_aware_port: int | None = None
    extensions: bool = False
    """Announces tablets and the code of rate limits."""
    login: tuple[str, str] | None = None
    login_refusal: str = "Provided username and/or password are incorrect"
    tls: ssl.SSLContext | None = None
    host_id: UUID = field(default_factory=uuid4)
    on_write: Callable[[Write], None] = acknowledge
    sink: bool = False
    """Only counts `rows`; `on_write` hears nothing."""
    deaf: bool = False
    """Answers nothing but writes."""
    held: bool = False
    """Hears nothing until `release`."""
    refusal: tuple[int, str] | None = None
    """What it says to PREPARE instead of preparing: error code and message."""
    rows: int = 0
    writes: list[Write] = field(default_factory=list)
    prepared: set[bytes] = field(default_factory=set)
    prepares: int = 0
    unprepared: int = 0
    """Answers that a statement is unknown."""
    connections: set[Connection] = field(default_factory=set)
    turns: Iterator[int] = field(default_factory=count)
    _servers: list[asyncio.Server] = field(default_factory=list)

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        ports: list[tuple[int, bool]] = [(self.ring.port, False)]
        if self.shard_aware_port is not None:
            ports.append((self.shard_aware_port, True))
        for port, by_source_port in ports:
            server = await loop.create_server(
                lambda by_source_port=by_source_port: Connection(self, by_source_port),
                self.address, port, ssl=self.tls,
            )  # fmt: skip
            self._servers.append(server)

    def stop(self) -> None:
        """As if it was killed: nobody listens, connections are reset, statements are forgotten."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        self.cut()
        self.prepared.clear()

    def release(self) -> None:
        self.held = False
        for connection in set(self.connections):
            connection.data_received(b"")

    def cut(self) -> None:
        for connection in set(self.connections):
            connection.transport.abort()

    def check_login(self, body: bytes) -> tuple[int, bytes]:
        if self.login is not None and body[4:] == b"\0" + b"\0".join(map(str.encode, self.login)):
            return Opcode.AUTH_SUCCESS, integer(-1)
        return Opcode.ERROR, integer(BAD_CREDENTIALS) + text(self.login_refusal)

    def supported(self, shard: int) -> bytes:
        options = {"CQL_VERSION": "3.4.7", "COMPRESSION": "lz4"}
        if self.extensions:
            options |= {"TABLETS_ROUTING_V1": "", "SCYLLA_RATE_LIMIT_ERROR": f"ERROR_CODE={RATE_LIMITED}"}
        if self.shards:
            options |= {
                "SCYLLA_SHARD": str(shard),
                "SCYLLA_NR_SHARDS": str(self.shards),
                "SCYLLA_PARTITIONER": MURMUR3,
                "SCYLLA_SHARDING_ALGORITHM": "biased-token-round-robin",
                "SCYLLA_SHARDING_IGNORE_MSB": str(IGNORED_BITS),
            }
            if self.shard_aware_port is not None:
                options["SCYLLA_SHARD_AWARE_PORT"] = str(self.shard_aware_port)
        entries = (text(name) + short(1) + text(value) for name, value in options.items())
        return short(len(options)) + b"".join(entries)

    def prepare(self, cql: str) -> tuple[int, bytes]:
        self.prepares += 1
        if self.refusal is not None:
            return Opcode.ERROR, integer(self.refusal[0]) + text(self.refusal[1])
        statement = hashlib.md5(cql.encode(), usedforsecurity=False).digest()
        self.prepared.add(statement)
        return Opcode.RESULT, prepared_insert(statement, KEYSPACE, late="TTL" in cql)

    def query(self, cql: str) -> tuple[int, bytes]:
        if cql.startswith("USE "):
            return Opcode.RESULT, integer(3) + text(KEYSPACE)
        for table, rows in (("system.local", [self]), ("system.peers ", self.ring.peers(self))):
            if table in cql + " ":
                return Opcode.RESULT, rows_result(cql, _HOST_COLUMNS, [node.host_row() for node in rows])
        if "system_schema.keyspaces" in cql:
            replication = {"class": "NetworkTopologyStrategy", DATACENTER: str(self.ring.replication)}
            row = {"keyspace_name": KEYSPACE, "durable_writes": True, "replication": replication}
            return Opcode.RESULT, rows_result(cql, _KEYSPACE_COLUMNS, [row] if f"'{KEYSPACE}'" in cql else [])
        return Opcode.ERROR, integer(INVALID) + text(f"a fake has no answer to {cql}")

    def host_row(self) -> dict[str, Any]:
        place = dict.fromkeys(("peer", "rpc_address", "broadcast_address", "listen_address"), self.address)
        return place | {
            "key": "local", "cluster_name": "fake", "data_center": DATACENTER, "rack": "r1", "host_id": self.host_id,
            "release_version": "3.0.8" if self.shards else "5.0.6", "partitioner": MURMUR3, "schema_version": UUID(int=1),
            "tokens": {str(token) for token in self.tokens},
        }  # fmt: skip


_HOST_COLUMNS: Final = {
    "peer": INET, "rpc_address": INET, "broadcast_address": INET, "listen_address": INET, "key": TEXT,
    "cluster_name": TEXT, "data_center": TEXT, "rack": TEXT, "host_id": UUID_, "release_version": TEXT,
    "partitioner": TEXT, "schema_version": UUID_, "tokens": SET,
}  # fmt: skip
_KEYSPACE_COLUMNS: Final = {"keyspace_name": TEXT, "durable_writes": BOOLEAN, "replication": MAP}


class FakeRing:
    """Nodes of one cluster, each with its share of the tokens; one port, an address each."""

    def __init__(self, port: int, replication: int = 1) -> None:
        self.port = port
        self.replication = replication
        self.nodes: list[FakeNode] = []

    def add(self, address: str, **fields: Any) -> FakeNode:
        dice = random.Random(address)  # the same ring in every run
        node = FakeNode(address, self, [dice.randrange(-(2**63), 2**63) for _ in range(8)], **fields)
        self.nodes.append(node)
        return node

    def peers(self, asked: FakeNode) -> list[FakeNode]:
        return [node for node in self.nodes if node is not asked]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@asynccontextmanager
async def fake_ring(nodes: int = 1, replication: int = 1, *, shard_aware: bool = False, **fields: Any) -> AsyncIterator[FakeRing]:  # fmt: skip
    """A ring that is up, on addresses from 127.0.4.1; `fields` are of each node."""
    ring = FakeRing(free_port(), replication)
    for number in range(1, nodes + 1):
        node = ring.add(f"127.0.4.{number}", **fields)
        if shard_aware:
            node.shard_aware_port = free_port()
        await node.start()
    try:
        yield ring
    finally:
        for node in ring.nodes:
            node.stop()


async def _serve(address: str, port: int) -> None:
    node = FakeRing(port).add(address, sink=True)
    await node.start()
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        print(f"{node.rows} rows")  # noqa: T201 — what it was started for


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="A CQL server that counts the rows it is sent.")
    arguments.add_argument("--address", default="127.0.0.1")
    arguments.add_argument("--port", type=int, required=True)
    chosen = arguments.parse_args()
    with suppress(KeyboardInterrupt):
        uvloop.run(_serve(chosen.address, chosen.port))
