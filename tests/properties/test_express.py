"""The express way comes to the verdicts of the book: for any records, cold or warm, whatever chunk they come in."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from eventstore.accelerator import Accelerator
from eventstore.events import compile_schema
from eventstore.events.cells import FRESH, LATE, encode, values
from eventstore.events.erasure import Erasures
from eventstore.events.row import Row
from eventstore.ingest.express import Express
from eventstore.stream.chunk import Chunk, Member
from eventstore.tenancy import Tenant
from eventstore.tenancy.buckets import history
from tests.builders import DAY_MS, NOW_MS, cluster, registry, tier
from tests.verdicts import NOW_MICROS, RULES, WAYS, assert_the_same

pytestmark = pytest.mark.properties

T30 = tier("t30", buckets=history([(0, 10 * DAY_MS), (NOW_MS - 5 * DAY_MS, DAY_MS // 2)]))
T15 = tier("t15", days=15, width_days=5, on=cluster("c15"))
NUMBERS = compile_schema({"type": "object", "properties": {"n": {"type": "integer"}}})
REGISTRY = registry(
    Tenant("shop", T30),
    Tenant("forum", T15),
    Tenant("strict", T30, schemas={"seen": NUMBERS}, only_listed_events=True),
    Tenant("closed", T15, enabled=False),
)

ages = st.one_of(
    st.integers(-2 * DAY_MS, 40 * DAY_MS),
    st.sampled_from([0, 3_600_000, 3_599_999, 15 * DAY_MS, 30 * DAY_MS, 5 * DAY_MS, -DAY_MS, -DAY_MS - 1]),
)


def rfc3339(age: int) -> str:
    return datetime.fromtimestamp((NOW_MS - age) / 1000, UTC).isoformat(timespec="microseconds")


stamps = st.one_of(
    ages.map(lambda age: NOW_MS - age), ages.map(rfc3339), st.sampled_from(["2026-09-20T10:00:00", "soon", -1, None, 1.5, True])
)  # fmt: skip
names = st.sampled_from(["seen", "bought", "", "x" * 129, "nul\0", "größe"])
uids = st.sampled_from(["u1", "u2", "", "ü", "a:b", "u\0", "u" * 257])
message_ids = st.one_of(
    st.none(), st.uuids().map(str), st.uuids().map(lambda u: str(u).upper()),
    st.sampled_from(["", "m-1", "x" * 36, "é" * 36, "x" * 101, "9b2f8d2e 4c1a-4f7e-8a35-0d1c2b3a4f5e", "----" * 9]),
)  # fmt: skip
bodies = st.sampled_from(
    [
        "{}",
        '{"n": 1}',
        '{"n": "one"}',
        "[]",
        '"text"',
        "1",
        "null",
        '{"a":' * 40 + "1" + "}" * 40,
        '{"x": "[[[[[[{{{{{{"}',
        '{"ü": "ø"}',
    ]
)


@st.composite
def impressions(draw: st.DrawFn) -> tuple[bytes | None, bytes | None]:
    """The same for the posts that a user has seen."""
    times = {} if draw(st.booleans()) else {"at": draw(stamps)}
    posts = [
        post if draw(st.booleans()) else {"id": post, "at": draw(stamps)}
        for post in draw(st.lists(st.sampled_from(["p1", "p2", "größe", "", "p\0", "p" * 257]), max_size=4))
    ]
    tenant = draw(st.sampled_from(["shop", "shop", "forum", "strict", "closed", "nobody"]))
    value = json.dumps({"tenant": tenant, "uid": "u1", "posts": posts} | times).encode()
    return draw(st.sampled_from([f"{tenant}:u1".encode()] * 7 + [b"shop:u2"])), value


@st.composite
def events(draw: st.DrawFn) -> tuple[bytes | None, bytes | None]:
    """(key, value): mostly sound, with one thing or another wrong."""
    fields: dict[str, Any] = {
        "tenant": draw(st.sampled_from(["shop", "shop", "forum", "strict", "closed", "nobody"])),
        "uid": draw(uids) if draw(st.integers(0, 3)) == 0 else draw(st.sampled_from(["u1", "u2"])),
        "event": draw(names) if draw(st.integers(0, 3)) == 0 else "seen",
        "timestamp": draw(stamps),
        "message_id": draw(message_ids) if draw(st.booleans()) else str(draw(st.uuids())),
    }
    text = json.dumps(fields, ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()):
        text = text[:-1] + f', "properties": {draw(bodies)}}}'
    if draw(st.integers(0, 3)) == 0:
        text = text[:-1] + f', "context": {draw(bodies)}}}'
    value = text.encode()
    key = f"{fields['tenant']}:{fields['uid']}".encode()
    wrong = draw(st.integers(0, 15))
    if wrong == 0:
        value = value[: draw(st.integers(0, len(value)))]
    elif wrong == 1:
        value = value.replace(b"u", b"\xff", 1)
    elif wrong == 2:
        key = draw(st.sampled_from([b"", b"shop:u2", b"forum:u1"]))
    elif wrong == 3:
        return key, draw(st.sampled_from([None, b"", value[:-1] + b" " * 33_000 + b"}"]))
    return key, value


@st.composite
def messages(draw: st.DrawFn) -> list[Message]:
    found = draw(st.lists(st.one_of(events(), events(), events(), impressions()), max_size=12))
    return [
        Message(topic="events", partition=1, offset=offset, key=key, value=value, headers=None, timestamp=(1, NOW_MS))
        for offset, (key, value) in enumerate(found)
    ]


@st.composite
def erased_pasts(draw: st.DrawFn) -> tuple[bytes, int | None]:
    """A user's key and how far the past is erased, in microseconds; None takes it back."""
    key = draw(st.sampled_from([b"shop:u1", b"shop:u2", b"forum:u1", b"strict:u1", b"nobody:u1"]))
    return key, draw(st.one_of(st.none(), ages.map(lambda age: (NOW_MS - age) * 1000 + 1), st.just(NOW_MICROS)))


@pytest.mark.parametrize("accelerator", WAYS)
@given(st.lists(messages(), min_size=1, max_size=4))
def test_both_ways_come_to_the_same_verdicts(accelerator: Accelerator | None, chunks: list[list[Message]]) -> None:
    express = Express(RULES, accelerator=accelerator)
    for chunk in chunks:
        assert_the_same(express, chunk, REGISTRY)
        assert_the_same(express, chunk, REGISTRY)  # once more, with every sender known


@pytest.mark.parametrize("accelerator", WAYS)
@given(messages())
def test_a_new_registry_is_followed_at_once(accelerator: Accelerator | None, chunk: list[Message]) -> None:
    express = Express(RULES, accelerator=accelerator)
    assert_the_same(express, chunk, REGISTRY)
    moved = registry(Tenant("shop", T15), Tenant("forum", T30, enabled=False))
    assert_the_same(express, chunk, moved)
    assert_the_same(express, chunk, REGISTRY)


@pytest.mark.parametrize("accelerator", WAYS)
@given(messages(), st.lists(erased_pasts(), min_size=1, max_size=4))
def test_an_erasure_is_heeded_from_the_next_chunk_on(
    accelerator: Accelerator | None, chunk: list[Message], pasts: list[tuple[bytes, int | None]]
) -> None:
    erasures = Erasures()
    express = Express(RULES, erasures, accelerator)
    assert_the_same(express, chunk, REGISTRY, erasures)
    for key, to_micros in pasts:
        erasures.hear(key, to_micros)
        assert_the_same(express, chunk, REGISTRY, erasures)  # with senders remembered that are erased now
    fresh = Express(RULES, erasures, accelerator)
    assert_the_same(fresh, chunk, REGISTRY, erasures)


@pytest.mark.parametrize("accelerator", WAYS)
@pytest.mark.parametrize(("beyond", "stored"), [(-1, 3), (0, 0), (1, 0)])
def test_a_remembered_sender_that_is_erased_is_remembered_anew(
    accelerator: Accelerator | None, beyond: int, stored: int
) -> None:
    """By chance the property above seldom erases a sender that would else take the express way."""
    erasures = Erasures()
    express = Express(RULES, erasures, accelerator)
    good = json.dumps({"tenant": "shop", "uid": "u1", "event": "seen", "timestamp": NOW_MS,
                       "message_id": "9b2f8d2e-4c1a-4f7e-8a35-0d1c2b3a4f5e"}).encode()  # fmt: skip
    chunk = [
        Message(topic="events", partition=1, offset=n, key=b"shop:u1", value=good, timestamp=(1, 1)) for n in range(3)
    ]

    def rows() -> int:
        found = express.sort(Chunk("events", 1, chunk, 0, Member()), REGISTRY, NOW_MICROS)
        rows = sum(len(batch) for batch in found.batches.get("c30", []))
        assert found.erased == 3 - rows
        return rows

    assert rows() == 3
    erasures.hear(b"shop:u1", NOW_MICROS + beyond)
    assert [rows(), rows()] == [stored, stored]
    erasures.hear(b"shop:u1", None)
    assert rows() == 3


@pytest.mark.parametrize("accelerator", WAYS)
def test_known_senders_do_take_the_express_way(accelerator: Accelerator | None) -> None:
    """Else everything above would only compare the book with itself."""
    express = Express(RULES, accelerator=accelerator)
    good = json.dumps({"tenant": "shop", "uid": "u1", "event": "seen", "timestamp": NOW_MS,
                       "message_id": "9b2f8d2e-4c1a-4f7e-8a35-0d1c2b3a4f5e"}).encode()  # fmt: skip
    chunk = [
        Message(topic="events", partition=1, offset=n, key=b"shop:u1", value=good, timestamp=(1, 1)) for n in range(3)
    ]
    express.sort(Chunk("events", 1, chunk, 0, Member()), REGISTRY, NOW_MICROS)
    express._by_the_book = None  # type: ignore[method-assign, assignment]
    found = express.sort(Chunk("events", 1, chunk, 0, Member()), REGISTRY, NOW_MICROS)
    assert sum(len(batch) for batch in found.batches["c30"]) == 3


rows = st.builds(
    Row, uid=st.text(max_size=9).filter(str.isascii), tenant=st.just("shop"), bid=st.integers(0, 2**31 - 1), ts_ms=st.integers(0, 2**45),
    eid=st.binary(min_size=16, max_size=16), event=st.just("seen"), properties=st.binary(max_size=9), context=st.binary(max_size=9),
    write_micros=st.integers(0, 2**60), ttl_seconds=st.one_of(st.none(), st.integers(1, 2**31 - 1)),
)  # fmt: skip


@given(rows)
def test_cells_say_what_the_row_says(row: Row) -> None:
    cells = encode(row)
    found = values(cells)
    assert found[:2] == [row.uid.encode(), row.tenant.encode()]
    assert found[4:8] == [row.eid, row.event.encode(), row.properties, row.context]
    assert int.from_bytes(found[8], "big") == row.write_micros
    assert (cells[:2], len(found)) == ((FRESH, 9) if row.ttl_seconds is None else (LATE, 10))
