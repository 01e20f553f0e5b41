"""Rows taken straight from a RESULT's body are those that the driver's decoder finds there."""

from datetime import datetime, timedelta
from io import BytesIO
from typing import Any
from uuid import UUID

import msgspec
import pytest
from cassandra.connection import ProtocolError
from cassandra.cqltypes import DateType, LongType, TupleType, UTF8Type, UUIDType
from cassandra.protocol import ResultMessage
from cassandra.protocol_features import ProtocolFeatures
from hypothesis import given
from hypothesis import strategies as st

from eventstore.events.stored import SeenPost, StoredEvent
from eventstore.store.lane.rows import COUNTS, EVENTS, ITEMS, POSTS, Rows
from tests.cql_values import BIGINT, TEXT, TIMESTAMP, UUID_, described, page_result, short

pytestmark = pytest.mark.properties

EVENT = (DateType, UUIDType, UTF8Type, UTF8Type, UTF8Type)
ITEM = (TupleType.apply_parameters(list(EVENT)),)
POST = (UTF8Type, DateType, DateType)

texts = st.text(st.characters(codec="utf-8"), max_size=20)
documents = st.dictionaries(texts, texts, max_size=3).map(lambda each: msgspec.json.encode(each).decode())
millis = st.integers(0, 2**45)
events = st.tuples(millis, st.uuids(), texts, documents, documents)
TUPLE = short(0x31)
TYPES = {EVENT: [TIMESTAMP, UUID_, TEXT, TEXT, TEXT], POST: [TEXT, TIMESTAMP, TIMESTAMP], (LongType,): [BIGINT]}
TYPES[ITEM] = [TUPLE + short(5) + b"".join(TYPES[EVENT])]
"""The types of columns as a RESULT describes them."""
states = st.none() | st.binary(min_size=1, max_size=40)


def descriptions(kinds: tuple[Any, ...]) -> st.SearchStrategy[tuple[int, bytes]]:
    """None, one with the table once, one with the table for each column."""
    found = (described(TYPES[kinds], one_table=one_table) for one_table in (True, False))
    return st.sampled_from([(0x04, b""), *found])


def body(
    kinds: tuple[Any, ...], found: list[tuple[Any, ...]], state: bytes | None = None,
    description: tuple[int, bytes] = (0x04, b""),
) -> bytes:  # fmt: skip
    cells = [
        [None if value is None else kind.serialize(value, 4) for kind, value in zip(kinds, row, strict=True)]
        for row in found
    ]
    return page_result(len(kinds), cells, state, description)


def decoded(kinds: tuple[Any, ...], told: bytes) -> ResultMessage:
    """By the driver."""
    columns = [("eventstore", "a table", f"column {number}", kind) for number, kind in enumerate(kinds)]
    return ResultMessage.recv_body(BytesIO(told), 4, ProtocolFeatures(), {}, columns, None)


def time(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1)) // timedelta(milliseconds=1)


def stored(row: tuple[datetime, UUID, str, str, str]) -> StoredEvent:
    moment, eid, event, properties, context = row
    return StoredEvent(time(moment), eid, event, msgspec.Raw(properties.encode()), msgspec.Raw(context.encode()))


@given(st.lists(events, max_size=5), states, descriptions(EVENT))
def test_events_are_those_that_the_driver_reads(
    found: list[tuple[Any, ...]], state: bytes | None, description: tuple[int, bytes]
) -> None:
    told = body(EVENT, found, state, description)
    drivers, page = decoded(EVENT, told), EVENTS.page(told)
    assert page.rows == [stored(row) for row in drivers.parsed_rows]
    assert page.state == drivers.paging_state


@given(st.lists(events, max_size=5), descriptions(ITEM))
def test_items_are_those_that_the_driver_reads(found: list[tuple[Any, ...]], description: tuple[int, bytes]) -> None:
    told = body(ITEM, [(each,) for each in found], None, description)
    assert ITEMS.page(told).rows == [stored(row) for (row,) in decoded(ITEM, told).parsed_rows]


@given(st.lists(st.tuples(texts, millis | st.none(), millis), max_size=5))
def test_posts_are_those_that_the_driver_reads(found: list[tuple[Any, ...]]) -> None:
    told = body(POST, found, None)
    assert POSTS.page(told).rows == [
        SeenPost(post, time(first or last), time(last)) for post, first, last in decoded(POST, told).parsed_rows
    ]


@given(st.integers(0, 2**62))
def test_a_count_is_the_one_that_the_driver_reads(number: int) -> None:
    told = body((LongType,), [(number,)], None)
    assert [(count,) for count in COUNTS.page(told).rows] == decoded((LongType,), told).parsed_rows


@given(millis, st.uuids(), st.sets(st.sampled_from([2, 3, 4])))
def test_columns_that_somebody_has_left_out_are_empty(moment: int, eid: UUID, absent: set[int]) -> None:
    row = tuple(None if at in absent else value for at, value in enumerate((moment, eid, "viewed", '{"a":1}', "{}")))
    (found,) = EVENTS.page(body(EVENT, [row], None)).rows
    assert found.event == ("" if 2 in absent else "viewed")
    assert bytes(found.properties) == (b"{}" if 3 in absent else b'{"a":1}')
    assert bytes(found.context) == b"{}"


@given(st.sampled_from([EVENTS, ITEMS, POSTS, COUNTS]), st.binary(max_size=80), st.integers(1, 2**31 - 1))
def test_a_page_that_breaks_off_or_runs_on_is_the_nodes_fault(kind: Rows[Any], rest: bytes, count: int) -> None:
    """Never any other exception, and never a row that is not there."""
    told = page_result(kind.columns, [], None)[:-4] + count.to_bytes(4, "big") + rest
    try:
        page = kind.page(told)
    except ProtocolError:
        return
    assert len(page.rows) == count
