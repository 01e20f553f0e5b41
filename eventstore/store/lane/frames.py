"""CQL protocol v4 as bytes: the requests a lane sends and the answers it gets. Pure.

What is written equals, byte for byte, what the driver's own messages write; a property test holds that.
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum
from io import BytesIO
from struct import Struct
from typing import Final, NamedTuple

from cassandra import ConsistencyLevel
from cassandra.connection import ProtocolError
from cassandra.protocol import ErrorMessage
from cassandra.protocol_features import ProtocolFeatures

from eventstore.events.row import Batch, Row

VERSION: Final = 4
ANSWERS: Final = 0x80 | VERSION
"""The first byte of every answer."""
MOST_BODY: Final = 256 * 2**20
"""Bytes that the protocol allows a frame's body."""
HEADER: Final = Struct(">BBhBi")
"""Version, flags, stream, opcode, body length."""
EVENT_STREAM: Final = -1


class Opcode(IntEnum):
    ERROR = 0x00
    STARTUP = 0x01
    READY = 0x02
    AUTHENTICATE = 0x03
    OPTIONS = 0x05
    SUPPORTED = 0x06
    RESULT = 0x08
    PREPARE = 0x09
    EXECUTE = 0x0A
    BATCH = 0x0D
    AUTH_RESPONSE = 0x0F
    AUTH_SUCCESS = 0x10


class Flag(IntEnum):
    TRACING = 0x02
    CUSTOM_PAYLOAD = 0x04
    WARNING = 0x08


UNPREPARED: Final = 0x2500
OVERLOADED: Final = 0x1001

_SHORT: Final = Struct(">H").pack
_INT: Final = Struct(">i").pack
_CONSISTENCY: Final = _SHORT(ConsistencyLevel.LOCAL_QUORUM)
_EXECUTE_TAIL: Final = _CONSISTENCY + b"\x01"
"""Consistency, then the flag that values follow."""
_BATCH_TAIL: Final = _CONSISTENCY + b"\x00"
_UNLOGGED: Final = b"\x01"

_FIXED: Final = Struct(">iiiqi16s")
"""Lengths and values of bid, ts, eid."""
_FRESH: Final = Struct(">iq")
"""Length and value of the write timestamp."""
_LATE: Final = Struct(">iqii")
"""Lengths and values of the write timestamp and the time to live."""
_FRESH_CELLS: Final = _SHORT(9)
_LATE_CELLS: Final = _SHORT(10)


class Prepared(NamedTuple):
    """A node's ids of the two INSERT statements, spelled as requests begin with them."""

    fresh: bytes
    late: bytes

    @classmethod
    def of(cls, fresh: bytes, late: bytes) -> "Prepared":
        return cls(_SHORT(len(fresh)) + fresh, _SHORT(len(late)) + late)


def cells(row: Row) -> bytes:
    """The row's cells as its statement binds them: their number, then each with its length."""
    uid, tenant, event = row.uid.encode(), row.tenant.encode(), row.event.encode()
    properties, context = row.properties, row.context
    ttl = row.ttl_seconds
    return b"".join(
        (
            _FRESH_CELLS if ttl is None else _LATE_CELLS,
            _INT(len(uid)), uid,
            _INT(len(tenant)), tenant,
            _FIXED.pack(4, row.bid, 8, row.ts_ms, 16, row.eid),
            _INT(len(event)), event,
            _INT(len(properties)), properties,
            _INT(len(context)), context,
            _FRESH.pack(8, row.write_micros) if ttl is None else _LATE.pack(8, row.write_micros, 4, ttl),
        )
    )  # fmt: skip


def write(prepared: Prepared, batch: Batch) -> tuple[int, bytes]:
    """(opcode, body) that stores a batch: one row is an EXECUTE, more are an unlogged BATCH."""
    fresh, late = prepared
    if len(batch) == 1:
        bound = cells(batch[0])
        statement = fresh if batch[0].ttl_seconds is None else late
        return Opcode.EXECUTE, b"".join((statement, _EXECUTE_TAIL, bound))
    parts = [_UNLOGGED, _SHORT(len(batch))]
    for row in batch:
        parts += (b"\x01", fresh if row.ttl_seconds is None else late, cells(row))
    parts.append(_BATCH_TAIL)
    return Opcode.BATCH, b"".join(parts)


def routing_key(row: Row) -> bytes:
    """The partition key as the token is hashed from: each component with its length before and a zero behind."""
    uid, tenant = row.uid.encode(), row.tenant.encode()
    return b"".join(
        (_SHORT(len(uid)), uid, b"\x00", _SHORT(len(tenant)), tenant, b"\x00\x00\x04", _INT(row.bid), b"\x00")
    )


def frame(stream: int, opcode: int, body: bytes) -> bytes:
    return HEADER.pack(VERSION, 0, stream, opcode, len(body)) + body


# ------------------------------------------------------------------------------------------------------ control requests


def startup(options: Mapping[str, str]) -> bytes:
    return _SHORT(len(options)) + b"".join(_string(name) + _string(value) for name, value in options.items())


def credentials(username: str, password: str) -> bytes:
    """The answer to AUTHENTICATE for password authentication (SASL PLAIN)."""
    token = b"\x00" + username.encode() + b"\x00" + password.encode()
    return _INT(len(token)) + token


def prepare(statement: str) -> bytes:
    encoded = statement.encode()
    return _INT(len(encoded)) + encoded


def _string(text: str) -> bytes:
    encoded = text.encode()
    return _SHORT(len(encoded)) + encoded


# --------------------------------------------------------------------------------------------------------------- answers


class Answer(NamedTuple):
    """One frame from a node."""

    flags: int
    stream: int
    opcode: int
    body: bytes


def split(buffer: bytes) -> tuple[list[Answer], bytes]:
    """The whole frames at the start of a buffer, and the rest.

    Raises:
        cassandra.connection.ProtocolError: what was sent is no answer of this protocol; no later byte can be trusted.
    """
    answers = []
    offset, end = 0, len(buffer)
    while end - offset >= HEADER.size:
        version, flags, stream, opcode, length = HEADER.unpack_from(buffer, offset)
        if version != ANSWERS or not 0 <= length <= MOST_BODY:
            raise ProtocolError(
                f"expected an answer of CQL protocol v{VERSION}, got {buffer[offset : offset + 9].hex()}"
            )
        start = offset + HEADER.size
        if start + length > end:
            break
        answers.append(Answer(flags, stream, opcode, buffer[start : start + length]))
        offset = start + length
    return answers, buffer[offset:]


def error(answer: Answer, features: ProtocolFeatures) -> ErrorMessage:
    """The error a node answered with, as the driver's own class for it."""
    body = BytesIO(content(answer).body)
    return ErrorMessage.recv_body(body, VERSION, features)


class Content(NamedTuple):
    payload: Mapping[str, bytes]
    """The custom payload; ScyllaDB tells there of tablets it would rather be asked at."""
    body: bytes


def content(answer: Answer) -> Content:
    """An answer's body without what its flags put before it."""
    reader = Reader(answer.body)
    if answer.flags & Flag.TRACING:
        reader.take(16)
    if answer.flags & Flag.WARNING:
        for _ in range(reader.short()):
            reader.string()
    payload = dict(reader.payload()) if answer.flags & Flag.CUSTOM_PAYLOAD else {}
    return Content(payload, reader.rest())


def supported(body: bytes) -> dict[str, list[str]]:
    """The options of a SUPPORTED answer."""
    reader = Reader(body)
    return {reader.string(): [reader.string() for _ in range(reader.short())] for _ in range(reader.short())}


def prepared_id(body: bytes) -> bytes:
    """The statement's id in the answer to PREPARE."""
    reader = Reader(body)
    reader.take(4)  # the result's kind
    return reader.take(reader.short())


class Reader:
    """Reads the protocol's notations from a body."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._offset = 0

    def take(self, length: int) -> bytes:
        start = self._offset
        self._offset += length
        return self._body[start : self._offset]

    def short(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def string(self) -> str:
        return self.take(self.short()).decode()

    def payload(self) -> Iterator[tuple[str, bytes]]:
        for _ in range(self.short()):
            name = self.string()
            yield name, self.take(max(0, int.from_bytes(self.take(4), "big", signed=True)))

    def rest(self) -> bytes:
        return self._body[self._offset :]
