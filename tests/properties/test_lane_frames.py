"""For any row the lane's bytes are the driver's bytes: of every table, single and in batches."""

from io import BytesIO
from typing import NamedTuple
from uuid import UUID

import pytest
from cassandra import ConsistencyLevel
from cassandra.cqltypes import DateType, Int32Type, LongType, TupleType, UTF8Type, UUIDType
from cassandra.protocol import BatchMessage, ExecuteMessage
from cassandra.query import BatchType
from hypothesis import given
from hypothesis import strategies as st

from eventstore.events.cells import (
    FIRST_SEEN,
    FRESH,
    FRESH_LATEST,
    INT,
    LAST_SEEN,
    LATE,
    LATE_LATEST,
    STATEMENTS,
    Cells,
    TableName,
    encode,
    key_end,
    nothing_beside,
    routing_key,
    table_of,
    values,
)
from eventstore.events.row import Row
from eventstore.store.lane import frames
from eventstore.store.lane.frames import Answer, Prepared
from tests import builders

pytestmark = pytest.mark.properties

IDS = {head: b"id of " + name.encode() for head, name in STATEMENTS.items()}
PREPARED = Prepared.of(IDS)
ITEM = TupleType.apply_parameters([DateType, UUIDType, UTF8Type, UTF8Type, UTF8Type])

texts = st.text(st.characters(codec="utf-8"), max_size=20)
rows = st.builds(
    Row,
    uid=texts, tenant=texts, bid=st.integers(-(2**31), 2**31 - 1), ts_ms=st.integers(0, 2**45),
    eid=st.binary(min_size=16, max_size=16), event=texts, properties=texts.map(str.encode), context=texts.map(str.encode),
    write_micros=st.integers(-(2**63), 2**63 - 1), ttl_seconds=st.one_of(st.none(), st.integers(1, 2**31 - 1)),
)  # fmt: skip


def serialised(*typed: tuple[type, object]) -> list[bytes]:
    return [kind.serialize(value, 4) for kind, value in typed]  # type: ignore[attr-defined]


class Case(NamedTuple):
    """A row's cells, and what the driver would bind for its statement."""

    cells: Cells
    head: bytes
    bound: list[bytes]

    @property
    def statement(self) -> bytes:
        return IDS[self.head]


def ending(row: Row) -> list[bytes]:
    """The write timestamp, and what is left of a late row's life."""
    life = [] if row.ttl_seconds is None else serialised((Int32Type, row.ttl_seconds))
    return serialised((LongType, row.write_micros)) + life


def event(row: Row) -> Case:
    key = serialised(
        (UTF8Type, row.uid),
        (UTF8Type, row.tenant),
        (Int32Type, row.bid),
        (DateType, row.ts_ms),
        (UUIDType, UUID(bytes=row.eid)),
    )
    texts = serialised((UTF8Type, row.event), (UTF8Type, row.properties.decode()), (UTF8Type, row.context.decode()))
    return Case(encode(row), FRESH if row.ttl_seconds is None else LATE, [*key, *texts, *ending(row)])


def latest(row: Row) -> Case:
    item = (row.ts_ms, UUID(bytes=row.eid), row.event, row.properties.decode(), row.context.decode())
    cells = serialised((UTF8Type, row.uid), (UTF8Type, row.tenant), (UTF8Type, row.event), (ITEM, item))
    return Case(builders.latest(row), FRESH_LATEST if row.ttl_seconds is None else LATE_LATEST, [*cells, *ending(row)])


def seen(row: Row, head: bytes) -> Case:
    """When a post, by the name of the event, was seen."""
    key = serialised((UTF8Type, row.uid), (UTF8Type, row.tenant), (Int32Type, row.bid), (UTF8Type, row.event))
    cells = [*key, *serialised((DateType, row.ts_ms), (LongType, row.write_micros), (Int32Type, row.ttl_seconds or 1))]
    return Case(head + b"".join(INT(len(cell)) + cell for cell in cells), head, cells)


cases = st.one_of(rows.map(event), rows.map(latest), st.builds(seen, rows, st.sampled_from([LAST_SEEN, FIRST_SEEN])))


def sent(message: ExecuteMessage | BatchMessage) -> bytes:
    body = BytesIO()
    message.send_body(body, 4)
    return body.getvalue()


@given(cases)
def test_one_row_is_the_drivers_execute(case: Case) -> None:
    driver = ExecuteMessage(case.statement, case.bound, ConsistencyLevel.LOCAL_QUORUM)
    opcode, parts = frames.write(PREPARED, [case.cells])
    assert (opcode, b"".join(parts)) == (ExecuteMessage.opcode, sent(driver))


@given(st.lists(cases, min_size=2, max_size=8))
def test_more_rows_are_the_drivers_unlogged_batch(batch: list[Case]) -> None:
    queries = [(True, case.statement, case.bound) for case in batch]
    driver = BatchMessage(BatchType.UNLOGGED, queries, ConsistencyLevel.LOCAL_QUORUM)
    opcode, parts = frames.write(PREPARED, [case.cells for case in batch])
    assert (opcode, b"".join(parts)) == (BatchMessage.opcode, sent(driver))


@given(
    st.binary(min_size=1, max_size=16), cases, st.integers(1, 10_000), st.none() | st.binary(min_size=1, max_size=99)
)
def test_a_read_is_the_drivers_execute(statement: bytes, case: Case, size: int, state: bytes | None) -> None:
    driver = ExecuteMessage(
        statement, case.bound, ConsistencyLevel.LOCAL_QUORUM, fetch_size=size, paging_state=state, skip_meta=True
    )
    plain = sent(driver)
    place = 2 + len(statement) + 2
    assert not plain[place] & 0x02  # only since it cannot trust what it knows of the columns
    expected = plain[:place] + bytes([plain[place] | 0x02]) + plain[place + 1 :]
    assert frames.read(statement, len(case.bound), case.cells[2:], size, state) == expected


@given(cases)
def test_cells_are_taken_apart_as_the_driver_binds_them(case: Case) -> None:
    assert values(case.cells) == case.bound
    assert (case.cells[:2], case.cells[1]) == (case.head, len(case.bound))


@given(cases)
def test_the_routing_key_is_the_drivers(case: Case) -> None:
    key = partition_key(case.cells)
    assert key == case.bound[: len(key)]
    composed = b"".join(len(part).to_bytes(2, "big") + part + b"\0" for part in key)
    assert routing_key(case.cells) == composed


def partition_key(cells: Cells) -> list[bytes]:
    key = values(cells[: key_end(cells)])
    assert len(key) == (2 if table_of(cells) is TableName.LATEST else 3)
    return key


answers = st.lists(
    st.builds(Answer, flags=st.just(0), stream=st.integers(0, 2**15 - 1), opcode=st.sampled_from([0, 8]), body=st.binary(max_size=40)),
    max_size=6,
)  # fmt: skip


@given(cases)
def test_what_is_written_beside_a_row_is_of_its_partition_and_carries_nothing_of_it_beyond_a_second(case: Case) -> None:
    beside = nothing_beside(case.cells)
    assert table_of(beside) is table_of(case.cells)
    assert routing_key(beside) == routing_key(case.cells)
    written = (
        case.bound[5:6]
        if table_of(beside) is TableName.IMPRESSIONS
        else case.bound[-1 if case.head in {FRESH, FRESH_LATEST} else -2 :][:1]
    )
    *_, write_time, ttl = found = values(beside)
    assert (beside[1], [write_time]) == (len(found), written)
    assert int.from_bytes(ttl, "big") == 1
    nothing = [(-1).to_bytes(8, "big", signed=True), bytes(16), b"", b"{}", b"{}"]
    item = b"".join(INT(len(cell)) + cell for cell in nothing)
    without = {TableName.EVENTS: nothing, TableName.LATEST: [b"", item], TableName.IMPRESSIONS: [b"", nothing[0]]}
    assert found[len(partition_key(beside)) : -2] == without[table_of(beside)]


@given(answers, st.lists(st.integers(1, 30), max_size=40))
def test_answers_are_found_however_the_network_cuts_them(answers: list[Answer], cuts: list[int]) -> None:
    stream = b"".join(frames.HEADER.pack(0x84, a.flags, a.stream, a.opcode, len(a.body)) + a.body for a in answers)
    found: list[Answer] = []
    rest = b""
    for cut in [*cuts, len(stream)]:
        piece, stream = stream[:cut], stream[cut:]
        whole, rest = frames.split(rest + piece)
        found += whole
    assert (found, rest) == (answers, b"")


def test_what_flags_put_before_the_body_is_taken_off() -> None:
    tracing = bytes(16)
    warning = b"\0\1" + b"\0\4oops"
    payload = b"\0\1" + b"\0\1k" + (3).to_bytes(4, "big") + b"abc"
    answer = Answer(0x02 | 0x04 | 0x08, 1, 8, tracing + warning + payload + b"rest")
    assert frames.content(answer) == ({"k": b"abc"}, b"rest")
