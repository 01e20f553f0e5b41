"""Whatever comes in, an Event or a Rejected comes out; what is mapped can be read again."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import msgspec
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventstore.events import (
    Coordinates,
    Event,
    Rejected,
    check_key,
    check_limits,
    compile_schema,
    decode,
    event_id,
    event_micros,
)
from eventstore.events.envelope import encode, record_key
from eventstore.events.foreign import Constant, EnvelopeMapping, at_micros
from eventstore.events.identity import uuid_bytes
from eventstore.events.outgoing import DAY_MICROS, Outgoing, Preparation, unchecked
from eventstore.events.validate import nesting, shape
from tests.builders import NOW_MS, envelope

pytestmark = pytest.mark.properties

NOW_MICROS = NOW_MS * 1_000
SCHEMA = compile_schema({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
stamps = st.integers(-(2**70), 2**70) | st.datetimes(timezones=st.none() | st.timezones()) | st.text() | st.floats()


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """Envelopes with any values in some of their fields, often cut or overwritten somewhere."""
    fields: dict[str, Any] = msgspec.json.decode(envelope(message_id="m1", properties={"a": "x"}))
    fields |= draw(st.dictionaries(st.sampled_from([*fields, "context", "other"]), values, max_size=3))
    if draw(st.booleans()):
        fields["timestamp"] = draw(stamps)
    raw = bytearray(msgspec.json.encode(fields, enc_hook=str) if _encodes(fields) else b"{}")
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        raw[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(raw)


def _encodes(fields: dict[str, Any]) -> bool:
    try:
        msgspec.json.encode(fields)
    except (OverflowError, ValueError, UnicodeEncodeError):
        return False
    return True


def judged(value: bytes | None, key: bytes | None) -> Event | Rejected:
    event = decode(value)
    if isinstance(event, Rejected):
        return event
    micros = event_micros(event, NOW_MICROS, DAY_MICROS)
    wrong = (
        check_limits(event)
        or check_key(event, key)
        or (micros if isinstance(micros, Rejected) else None)
        or SCHEMA.check(bytes(event.properties))
    )
    return wrong or event


@given(st.binary() | records() | st.none(), st.binary() | st.none() | st.just(b"shop:u1"))
@example(b'{"tenant":"a","uid":"b","event":"c","timestamp":"0001-01-01T00:00:00+14:00"}', b"a:b")
@example(b'{"tenant":"a","uid":"b","event":"c","timestamp":"9999-12-31T23:59:59.999999-14:00"}', b"a:b")
@settings(max_examples=1_000)
def test_whatever_the_bytes_an_event_or_a_reject_comes_out(value: bytes | None, key: bytes | None) -> None:
    found = judged(value, key)
    assert isinstance(found, Event | Rejected)
    if isinstance(found, Rejected):
        found.detail.encode()
    else:
        assert orjson.loads(bytes(found.properties)) is not None
        assert len(event_id(found.tenant, found.message_id, lambda: Coordinates("events", 0, 0))) == 16


@given(st.datetimes(datetime(1970, 1, 1), datetime(2026, 9, 21)), st.integers(-14 * 60, 14 * 60))
def test_one_moment_is_one_time_in_whatever_zone(moment: datetime, minutes: int) -> None:
    here = moment.replace(tzinfo=UTC)
    there = here.astimezone(timezone(timedelta(minutes=minutes)))
    expected = (here - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    for stamp in (here, there):
        event = decode(envelope(timestamp=stamp.isoformat()))
        assert isinstance(event, Event)
        assert event_micros(event, NOW_MICROS, DAY_MICROS) == expected


@given(values)
def test_nesting_counts_what_a_parser_sees(value: Any) -> None:
    raw = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS) if _plain_numbers(value) else b"0"
    assert nesting(shape(raw)) == _depth(orjson.loads(raw))
    assert len(shape(raw)) == 2 * _containers(orjson.loads(raw))


def _plain_numbers(value: Any) -> bool:
    try:
        orjson.dumps(value, default=str)
    except (TypeError, ValueError):
        return False
    return True


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _containers(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_containers, value.values()))
    return 1 + sum(map(_containers, value)) if isinstance(value, list) else 0


@given(st.uuids(), st.booleans())
def test_every_uuid_is_its_own_identity(uuid: UUID, upper: bool) -> None:  # noqa: FBT001 — drawn
    assert uuid_bytes(str(uuid).upper() if upper else str(uuid)) == uuid.bytes


@given(st.text(max_size=40) | st.from_regex(r"[0-9a-fA-F\- ]{36}", fullmatch=True))
def test_only_the_canonical_form_is_read_as_a_uuid(text: str) -> None:
    canonical = re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text) is not None
    assert (uuid_bytes(text) is not None) == canonical


paths = st.text(max_size=6) | st.sampled_from(["user", "actor.login", "actor", "a.b.c", ".", "time", "properties"])
mappings = st.builds(
    EnvelopeMapping,
    tenant=paths | st.builds(Constant, st.text(max_size=5)),
    uid=paths | st.just("user"),
    event=paths | st.builds(Constant, st.just("edit")),
    timestamp=paths | st.just("time"),
    message_id=paths,
    properties=st.none() | paths,
    tenant_strip=st.text(max_size=2),
)
foreign = st.fixed_dictionaries(
    {"user": values, "time": stamps | st.integers(0, 2**60), "actor": values | st.fixed_dictionaries({"login": values})}
)


@given(foreign.filter(_encodes).map(msgspec.json.encode) | st.binary(), mappings, st.integers(-(2**62), 2**62))
@settings(max_examples=500)
def test_a_foreign_record_becomes_an_event_that_workers_accept_or_a_reject(
    record: bytes, mapping: EnvelopeMapping, shift: int
) -> None:
    made = Preparation(NOW_MICROS, mapping, shift_micros=shift).prepare(record, 1)
    if isinstance(made, Rejected):
        made.detail.encode()
        return
    event = decode(made.value)
    assert isinstance(event, Event)
    assert check_limits(event) is None
    assert check_key(event, made.key) is None
    assert event_micros(event, NOW_MICROS, DAY_MICROS) == made.micros
    assert event.message_id


names = st.text(min_size=1, max_size=10).filter(lambda text: "\0" not in text)


@given(names, names, names, st.integers(0, NOW_MICROS), st.dictionaries(st.text(), st.integers() | st.text()))
def test_what_is_mapped_can_be_read_again(
    tenant: str, uid: str, event: str, micros: int, properties: dict[str, Any]
) -> None:
    raw = msgspec.json.encode({"t": tenant, "who": {"id": uid}, "what": event, "when": micros, "data": properties})
    mapping = EnvelopeMapping("t", "who.id", "what", "when", "none", "data")
    made = mapping.event_of(raw)
    assert isinstance(made, Event)
    assert (made.tenant, made.uid, made.event) == (tenant, uid, event)
    assert msgspec.json.decode(made.properties) == properties


@given(st.integers(0, NOW_MICROS))
def test_a_time_in_microseconds_survives_the_envelope(micros: int) -> None:
    event = decode(encode(Event(tenant="shop", uid="u1", event="e", timestamp=at_micros(micros))))
    assert isinstance(event, Event)
    assert event_micros(event, NOW_MICROS, DAY_MICROS) == micros


@given(records())
def test_an_envelope_that_needs_no_change_is_published_as_it_is(record: bytes) -> None:
    made = Preparation(NOW_MICROS).prepare(record, 1)
    event = decode(record)
    if isinstance(made, Outgoing) and isinstance(event, Event) and event.message_id:
        assert made.value == record
        assert made.key == record_key(event)


@given(st.binary() | records())
def test_unchecked_records_keep_their_bytes(record: bytes) -> None:
    assert unchecked(record).value == record
