"""For any row the lane's bytes are the driver's bytes: fresh and late, single and batch."""

from io import BytesIO
from uuid import UUID

import pytest
from cassandra import ConsistencyLevel
from cassandra.cqltypes import DateType, Int32Type, LongType, UTF8Type, UUIDType
from cassandra.protocol import BatchMessage, ExecuteMessage
from cassandra.query import BatchType
from hypothesis import given
from hypothesis import strategies as st

from eventstore.events.cells import encode, nothing_beside, routing_key, values
from eventstore.events.row import Row
from eventstore.store.lane import frames
from eventstore.store.lane.frames import Answer, Prepared

pytestmark = pytest.mark.properties

FRESH, LATE = b"fresh statement", b"late statement"
PREPARED = Prepared.of(FRESH, LATE)

texts = st.text(st.characters(codec="utf-8"), max_size=20)
rows = st.builds(
    Row,
    uid=texts, tenant=texts, bid=st.integers(-(2**31), 2**31 - 1), ts_ms=st.integers(0, 2**45),
    eid=st.binary(min_size=16, max_size=16), event=texts, properties=texts.map(str.encode), context=texts.map(str.encode),
    write_micros=st.integers(-(2**63), 2**63 - 1), ttl_seconds=st.one_of(st.none(), st.integers(1, 2**31 - 1)),
)  # fmt: skip


def bound(row: Row) -> list[bytes]:
    """The cells as the driver's types serialise them for the statement."""
    typed = [
        (UTF8Type, row.uid), (UTF8Type, row.tenant), (Int32Type, row.bid), (DateType, row.ts_ms), (UUIDType, UUID(bytes=row.eid)),
        (UTF8Type, row.event), (UTF8Type, row.properties.decode()), (UTF8Type, row.context.decode()),
        (LongType, row.write_micros),
    ]  # fmt: skip
    if row.ttl_seconds is not None:
        typed.append((Int32Type, row.ttl_seconds))
    return [kind.serialize(value, 4) for kind, value in typed]


def statement(row: Row) -> bytes:
    return FRESH if row.ttl_seconds is None else LATE


def sent(message: ExecuteMessage | BatchMessage) -> bytes:
    body = BytesIO()
    message.send_body(body, 4)
    return body.getvalue()


@given(rows)
def test_one_row_is_the_drivers_execute(row: Row) -> None:
    driver = ExecuteMessage(statement(row), bound(row), ConsistencyLevel.LOCAL_QUORUM)
    opcode, parts = frames.write(PREPARED, [encode(row)])
    assert (opcode, b"".join(parts)) == (ExecuteMessage.opcode, sent(driver))


@given(st.lists(rows, min_size=2, max_size=8))
def test_more_rows_are_the_drivers_unlogged_batch(batch: list[Row]) -> None:
    queries = [(True, statement(row), bound(row)) for row in batch]
    driver = BatchMessage(BatchType.UNLOGGED, queries, ConsistencyLevel.LOCAL_QUORUM)
    opcode, parts = frames.write(PREPARED, [encode(row) for row in batch])
    assert (opcode, b"".join(parts)) == (BatchMessage.opcode, sent(driver))


@given(rows)
def test_cells_are_taken_apart_as_the_driver_binds_them(row: Row) -> None:
    assert values(encode(row)) == bound(row)


@given(rows)
def test_the_routing_key_is_the_drivers(row: Row) -> None:
    uid, tenant, bid = bound(row)[:3]
    composed = b"".join(len(part).to_bytes(2, "big") + part + b"\0" for part in (uid, tenant, bid))
    assert routing_key(encode(row)) == composed


answers = st.lists(
    st.builds(Answer, flags=st.just(0), stream=st.integers(0, 2**15 - 1), opcode=st.sampled_from([0, 8]), body=st.binary(max_size=40)),
    max_size=6,
)  # fmt: skip


@given(rows)
def test_what_is_written_beside_a_row_is_of_its_partition_and_carries_nothing_of_it_beyond_a_second(row: Row) -> None:
    beside = nothing_beside(encode(row))
    assert routing_key(beside) == routing_key(encode(row))
    *_, ts, eid, event, properties, context, write_time, ttl = values(beside)
    assert int.from_bytes(ts, "big", signed=True) < 0
    assert (eid, event, properties, context) == (bytes(16), b"", b"{}", b"{}")
    assert write_time == bound(row)[8]
    assert int.from_bytes(ttl, "big") == 1


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
