"""The CQL protocol's notations, as a server writes and reads them."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from struct import Struct
from typing import Any, Final

short: Final = Struct(">H").pack
integer: Final = Struct(">i").pack

TEXT: Final = short(0x0D)
BOOLEAN: Final = short(0x04)
BIGINT: Final = short(0x02)
INT: Final = short(0x09)
TIMESTAMP: Final = short(0x0B)
UUID_: Final = short(0x0C)
INET: Final = short(0x10)
SET: Final = short(0x22) + TEXT
MAP: Final = short(0x21) + TEXT + TEXT

_INSERTED: Final = {
    "uid": TEXT, "tenant": TEXT, "bid": INT, "ts": TIMESTAMP, "eid": UUID_, "event": TEXT, "properties": TEXT,
    "context": TEXT, "[timestamp]": BIGINT, "[ttl]": INT,
}  # fmt: skip


def text(value: str) -> bytes:
    return short(len(value.encode())) + value.encode()


def cell(value: bytes | None) -> bytes:
    return integer(-1) if value is None else integer(len(value)) + value


def encode(kind: bytes, value: Any) -> bytes:
    if kind == INET:
        return ip_address(value).packed
    if kind == UUID_:
        return bytes(value.bytes)
    if kind == BOOLEAN:
        return bytes([value])
    if kind == SET:
        return integer(len(value)) + b"".join(cell(each.encode()) for each in sorted(value))
    if kind == MAP:
        return integer(len(value)) + b"".join(cell(part.encode()) for entry in value.items() for part in entry)
    return str(value).encode()


def rows_result(cql: str, types: Mapping[str, bytes], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The body of a RESULT with the columns that a SELECT names."""
    asked = cql.removeprefix("SELECT ").split(" FROM")[0]
    names = list(types) if asked == "*" else asked.split(", ")
    columns = b"".join(text(name) + types[name] for name in names)
    cells = b"".join(cell(encode(types[name], row[name])) for row in rows for name in names)
    return (
        integer(2)
        + integer(1)
        + integer(len(names))
        + text("system")
        + text("any")
        + columns
        + integer(len(rows))
        + cells
    )


def page_result(
    columns: int,
    rows: Sequence[Sequence[bytes | None]],
    state: bytes | None,
    described: tuple[int, bytes] = (0x04, b""),
) -> bytes:
    """The body of a RESULT to an EXECUTE; its columns are not described, or by these flags and bytes."""
    flags = described[0] | (0 if state is None else 0x02)
    more = (b"" if state is None else integer(len(state)) + state) + described[1]
    cells = b"".join(cell(value) for row in rows for value in row)
    return integer(2) + integer(flags) + integer(columns) + more + integer(len(rows)) + cells


def described(kinds: Sequence[bytes], *, one_table: bool) -> tuple[int, bytes]:
    """Flags and bytes that describe columns of these types."""
    table = text("eventstore") + text("a table")
    each = b"" if one_table else table
    columns = b"".join(each + text(f"column {number}") + kind for number, kind in enumerate(kinds))
    return (1, table + columns) if one_table else (0, columns)


def prepared_insert(statement: bytes, keyspace: str, *, late: bool) -> bytes:
    """The body of a RESULT to PREPARE of one of the two INSERT statements."""
    columns = [text(name) + kind for name, kind in list(_INSERTED.items())[: 10 if late else 9]]
    partition_key = integer(3) + short(0) + short(1) + short(2)
    bound = integer(1) + integer(len(columns)) + partition_key + text(keyspace) + text("events") + b"".join(columns)
    return integer(4) + short(len(statement)) + statement + bound + integer(4) + integer(0)


class Reader:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._offset = 0

    def take(self, length: int) -> bytes:
        self._offset += length
        return self._body[self._offset - length : self._offset]

    def short(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def string(self) -> str:
        return self.take(self.short()).decode()

    def string_map(self) -> dict[str, str]:
        return {self.string(): self.string() for _ in range(self.short())}

    def cells(self) -> list[bytes]:
        return [self.take(int.from_bytes(self.take(4), "big")) for _ in range(self.short())]
