"""The hostile inputs, each with the reason it must be rejected for, through the same steps as a worker takes."""

from typing import Any

import msgspec
import pytest

from eventstore.events import Reason, Rejected, check_key, check_limits, compile_schema, decode, event_micros
from tests.builders import NOW_MS, envelope

pytestmark = pytest.mark.unit

DAY_MICROS = 86_400_000_000
PRODUCT = compile_schema({"type": "object", "required": ["product_id"]})


def outcome(value: bytes | None, key: bytes | None = b"shop:u1") -> Reason | None:
    """None for an event that may be stored."""
    event = decode(value)
    if isinstance(event, Rejected):
        return event.reason
    wrong = check_limits(event) or check_key(event, key)
    if wrong is None and isinstance(micros := event_micros(event, NOW_MS * 1_000, DAY_MICROS), Rejected):
        wrong = micros
    return wrong.reason if wrong else None


def with_field(name: str, raw: bytes) -> bytes:
    """An envelope in which one field is these raw bytes."""
    fields: dict[str, Any] = msgspec.json.decode(envelope()) | {name: msgspec.Raw(raw)}
    return msgspec.json.encode(fields)


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


STAMPS = {
    "in 2100": ("2100-01-01T00:00:00Z", Reason.TIMESTAMP),
    "without a zone": ("2026-09-21T10:00:00", Reason.TIMESTAMP),
    "as string digits": (str(NOW_MS), Reason.MALFORMED),
    "before 1970": ("1969-12-31T23:59:59.999999Z", Reason.TIMESTAMP),
    "negative": (-1, Reason.TIMESTAMP),
    "2**63": (2**63, Reason.TIMESTAMP),
    "a fraction": (1.5, Reason.MALFORMED),
    "a second that is none": ("2026-09-21T23:59:60Z", Reason.MALFORMED),
}


@pytest.mark.parametrize(("timestamp", "reason"), STAMPS.values(), ids=STAMPS)
def test_a_wrong_time_is_rejected(timestamp: Any, reason: Reason) -> None:
    assert outcome(envelope(timestamp=timestamp)) is reason


@pytest.mark.parametrize("timestamp", [0, 1, "1970-01-01T00:00:00Z", NOW_MS, NOW_MS + DAY_MICROS // 1_000])
def test_a_time_from_1970_to_a_day_ahead_is_accepted(timestamp: Any) -> None:
    assert outcome(envelope(timestamp=timestamp)) is None


def test_a_time_of_thousands_of_digits_is_rejected() -> None:
    assert outcome(with_field("timestamp", b"9" * 5_000)) is Reason.MALFORMED


INPUTS = {
    "truncated JSON": (envelope()[:-1], Reason.MALFORMED),
    "two documents": (envelope() + envelope(), Reason.MALFORMED),
    "not an object": (b"[1,2]", Reason.MALFORMED),
    "a field missing": (b'{"tenant":"shop","uid":"u1","event":"e"}', Reason.MALFORMED),
    "an unknown field": (envelope(extra=1), Reason.MALFORMED),
    "a field of another type": (envelope(uid="u1", message_id="m").replace(b'"m"', b"7"), Reason.MALFORMED),
    "a byte order mark": (b"\xef\xbb\xbf" + envelope(), Reason.MALFORMED),
    "UTF-16": (envelope().decode().encode("utf-16"), Reason.MALFORMED),
    "invalid UTF-8 in a field": (with_field("event", b'"\xff"'), Reason.MALFORMED),
    "invalid UTF-8 in properties": (with_field("properties", b'{"a":"\xff"}'), Reason.MALFORMED),
    "a lone surrogate in a field": (with_field("event", rb'"\ud800"'), Reason.MALFORMED),
    "a lone surrogate in properties": (with_field("properties", rb'{"a":"\ud800"}'), Reason.MALFORMED),
    "a raw surrogate in properties": (with_field("properties", b'{"a":"\xed\xa0\x80"}'), Reason.MALFORMED),
    "NaN": (with_field("properties", b'{"a":NaN}'), Reason.MALFORMED),
    "infinity": (with_field("properties", b'{"a":-Infinity}'), Reason.MALFORMED),
    "depth 33": (with_field("properties", nested(33)), Reason.LIMIT),
    "depth 33 in context": (with_field("context", nested(33)), Reason.LIMIT),
    "depth 10,000": (with_field("properties", b"[" * 10_000 + b"]" * 10_000), Reason.MALFORMED),
    "4,097 objects and arrays": (with_field("properties", b'{"a":[' + b"[]," * 4_094 + b"[]]}"), Reason.LIMIT),
    "properties that are no object": (with_field("properties", b"[1]"), Reason.LIMIT),
    "properties that are null": (with_field("properties", b"null"), Reason.LIMIT),
    "NUL in uid": (envelope(uid="u\0"), Reason.LIMIT),
    "empty uid": (envelope(uid=""), Reason.LIMIT),
    "257 bytes of uid": (envelope(uid="u" * 257), Reason.LIMIT),
    "257 bytes of uid in few characters": (envelope(uid="é" * 128 + "u"), Reason.LIMIT),
    "129 bytes of event": (envelope(event="e" * 129), Reason.LIMIT),
    "101 bytes of message_id": (envelope(message_id="m" * 101), Reason.LIMIT),
    "33 KiB": (envelope(properties={"a": "x" * 33 * 1_024}), Reason.TOO_LARGE),
    "a tombstone": (None, Reason.EMPTY),
    "an empty value": (b"", Reason.EMPTY),
}


@pytest.mark.parametrize(("value", "reason"), INPUTS.values(), ids=INPUTS)
def test_a_hostile_input_is_rejected_with_its_reason(value: bytes | None, reason: Reason) -> None:
    assert outcome(value) is reason


HARMLESS = {
    "plain": envelope(),
    "2**63 in properties": with_field("properties", b'{"a":9223372036854775808}'),
    "a number beyond floats": with_field("properties", b'{"a":1e999}'),
    "duplicate keys in properties": with_field("properties", b'{"a":1,"a":2}'),
    "depth 32": with_field("properties", nested(32)),
    "brackets in strings": envelope(properties={"a": '{["\\"' * 50}),
    "many short arrays": envelope(properties={"a": [[] for _ in range(100)]}),
    "4,096 objects and arrays": with_field("properties", b'{"a":[' + b"[]," * 4_093 + b"[]]}"),
    "ten thousand brackets in a text": with_field("properties", b'{"a":"' + b'\\\\\\"[{' * 5_000 + b'"}'),
    "256 bytes of uid": envelope(uid="u" * 256),
    "properties in other scripts": envelope(properties={"name": "café ☕ 𝄞"}),
    "no message_id": with_field("message_id", b"null"),
    "32 KiB": envelope(properties={"a": "x" * (32 * 1_024 - len(envelope(properties={"a": ""})))}),
}


@pytest.mark.parametrize("value", HARMLESS.values(), ids=HARMLESS)
def test_an_odd_but_valid_input_is_accepted(value: bytes) -> None:
    event = decode(value)
    assert not isinstance(event, Rejected), event
    assert outcome(value, f"{event.tenant}:{event.uid}".encode()) is None


def test_of_duplicate_fields_the_last_one_counts() -> None:
    assert outcome(envelope().replace(b'"uid":"u1"', b'"uid":"u1","uid":"u2"'), b"shop:u2") is None


@pytest.mark.parametrize("key", [None, b"", b"shop", b"shop:u2", b"forum:u1", b"shop:u1 ", b"\xff"])
def test_a_key_that_claims_another_user_is_rejected(key: bytes | None) -> None:
    assert outcome(envelope(), key) is Reason.KEY_MISMATCH


def test_a_reject_of_the_key_shows_both() -> None:
    event = decode(envelope())
    assert not isinstance(event, Rejected)
    wrong = check_key(event, b"shop:\xff")
    assert wrong is not None
    assert "'shop:u1'" in wrong.detail
    assert "xff" in wrong.detail
    assert "no key" in str(check_key(event, None))


def test_properties_that_break_the_schema_are_rejected_with_their_path() -> None:
    schema = compile_schema({"properties": {"items": {"items": {"type": "integer"}}}})
    assert schema.check(b'{"items":[1,2]}') is None
    assert schema.check(b'{"items":[1,"x"]}') == Rejected(
        Reason.SCHEMA, 'properties.items.1: "x" is not of type "integer"'
    )
