"""CQL protocol v4 as bytes: the requests a lane sends and the answers it gets. Pure.

What is written equals, byte for byte, what the driver's own messages write; a property test holds that.
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum
from io import BytesIO
from struct import Struct
from struct import error as StructError  # noqa: N812 — it is a class
from typing import Final, NamedTuple

from cassandra import ConsistencyLevel
from cassandra.connection import ProtocolError
from cassandra.protocol import ErrorMessage
from cassandra.protocol_features import ProtocolFeatures

from eventstore.events.cells import INT, SHORT, Batch, Cells

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

_CONSISTENCY: Final = SHORT(ConsistencyLevel.LOCAL_QUORUM)
_EXECUTE_TAIL: Final = _CONSISTENCY + b"\x01"
"""Consistency, then the flag that values follow."""
_READ: Final = b"\x07"
"""Flags: values follow, no description of the columns wanted, the page size follows."""
_READ_ON: Final = b"\x0f"
"""And the paging state follows."""
_BATCH_TAIL: Final = _CONSISTENCY + b"\x00"
_UNLOGGED: Final = b"\x01"


class Prepared(NamedTuple):
    """A node's ids of the INSERT statements, spelled as they stand before a row's cells."""

    spelled: dict[bytes, tuple[bytes, bytes]]
    """By the head of the rows: for an EXECUTE, and for a BATCH."""
    batch_tail: bytes = _BATCH_TAIL
    """What stands behind the last row."""

    @classmethod
    def of(cls, ids: Mapping[bytes, bytes]) -> "Prepared":
        """From the statements' ids by the head of the rows that they insert."""
        return cls({
            head: (SHORT(len(each)) + each + _EXECUTE_TAIL, b"\x01" + SHORT(len(each)) + each)
            for head, each in ids.items()
        })  # fmt: skip


def write(prepared: Prepared, batch: Batch) -> tuple[int, list[bytes]]:
    """(opcode, parts of the body) that store a batch: one row is an EXECUTE, more are an unlogged BATCH."""
    if len(batch) == 1:
        (cells,) = batch
        return Opcode.EXECUTE, [prepared.spelled[cells[:2]][0], _counted(cells)]
    parts = [_UNLOGGED, SHORT(len(batch))]
    for cells in batch:
        parts += (prepared.spelled[cells[:2]][1], _counted(cells))
    parts.append(prepared.batch_tail)
    return Opcode.BATCH, parts


def _counted(cells: Cells) -> bytes:
    """Cells behind their count: the head without the statement's number."""
    return b"\0" + cells[1:] if cells[0] else cells


def wire(prepared: Prepared, batches: list[Batch], streams: list[int]) -> bytes:
    """The frames of batches, each under its stream, one behind the other."""
    found: list[bytes] = []
    for batch, stream in zip(batches, streams, strict=True):
        opcode, body = write(prepared, batch)
        found.append(HEADER.pack(VERSION, 0, stream, opcode, sum(map(len, body))))
        found += body
    return b"".join(found)


def read(statement: bytes, values: int, cells: bytes, rows: int, state: bytes | None) -> bytes:
    """The body of an EXECUTE that reads a page.

    Args:
        statement: its id.
        values: how many it binds.
        cells: of all values.
        rows: most of the page.
        state: where the page before it ended; None: the first.
    """
    flags = _READ if state is None else _READ_ON
    parts = [SHORT(len(statement)), statement, _CONSISTENCY, flags, SHORT(values), cells, INT(rows)]
    if state is not None:
        parts += (INT(len(state)), state)
    return b"".join(parts)


def acknowledged(buffer: bytes) -> tuple[list[int], int]:
    """The streams of the plain results that a buffer begins with, and where they end; `split` reads on there."""
    streams = []
    offset, end = 0, len(buffer)
    while end - offset >= HEADER.size:
        version, flags, stream, opcode, length = HEADER.unpack_from(buffer, offset)
        past = offset + HEADER.size + length
        if version != ANSWERS or flags or opcode != Opcode.RESULT or length < 0 or past > end:
            break
        streams.append(stream)
        offset = past
    return streams, offset


def frame(stream: int, opcode: int, body: bytes) -> bytes:
    return HEADER.pack(VERSION, 0, stream, opcode, len(body)) + body


# ------------------------------------------------------------------------------------------------------ control requests


def startup(options: Mapping[str, str]) -> bytes:
    return SHORT(len(options)) + b"".join(_string(name) + _string(value) for name, value in options.items())


def credentials(username: str, password: str) -> bytes:
    """The answer to AUTHENTICATE for password authentication (SASL PLAIN)."""
    token = b"\x00" + username.encode() + b"\x00" + password.encode()
    return INT(len(token)) + token


def prepare(statement: str) -> bytes:
    encoded = statement.encode()
    return INT(len(encoded)) + encoded


def _string(text: str) -> bytes:
    encoded = text.encode()
    return SHORT(len(encoded)) + encoded


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
    """The error a node answered with, as the driver's own class for it.

    Raises:
        cassandra.connection.ProtocolError: it cannot be read; the node's fault, and no reason to take it for ours.
    """
    try:
        return ErrorMessage.recv_body(BytesIO(content(answer).body), VERSION, features)
    except (StructError, LookupError, UnicodeDecodeError) as garbled:
        raise ProtocolError(f"expected an error of CQL protocol v{VERSION}, got {answer.body[:64].hex()}") from garbled


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
