"""Calls of the Segment API as events."""

import json
from typing import Any

import msgspec
import pytest

from eventstore.events import Event, Reason, Rejected
from eventstore.events.segment import LATENCY_MICROS, MAX_CALL_BYTES, Delivery, event_of, with_fields
from tests.builders import NOW_MS

pytestmark = pytest.mark.unit

NOW = NOW_MS * 1_000
AN_HOUR = 3_600_000
ID = "0192f0c1-2f6e-7b1a-9a57-0c1d2e3f4a5b"


def called(kind: str | None = "track", *, sent_at: int | None = None, **fields: Any) -> Event | Rejected:
    call = {"userId": "u1", "event": "Viewed", "messageId": ID} | fields
    return event_of(json.dumps(call).encode(), 0, Delivery("shop", NOW, sent_at, kind=kind))


def event(kind: str | None = "track", *, sent_at: int | None = None, **fields: Any) -> Event:
    made = called(kind, sent_at=sent_at, **fields)
    assert isinstance(made, Event), made
    return made


def body(raw: msgspec.Raw) -> Any:
    return json.loads(bytes(raw))


def test_a_track_call_is_the_event_that_it_names() -> None:
    made = event(properties={"sku": "A1"}, context={"ip": "1.2.3.4"}, timestamp=NOW_MS)
    assert (made.tenant, made.uid, made.event, made.message_id) == ("shop", "u1", "Viewed", ID)
    assert (body(made.properties), body(made.context)) == ({"sku": "A1"}, {"ip": "1.2.3.4"})


@pytest.mark.parametrize(
    ("kind", "fields", "properties"),
    [
        ("identify", {"traits": {"plan": "pro"}}, {"plan": "pro"}),
        ("page", {"name": "Home", "properties": {"url": "/"}}, {"name": "Home", "url": "/"}),
        ("page", {"name": "Home", "properties": {"name": "Start"}}, {"name": "Start"}),
        ("screen", {"name": "Home", "category": "top"}, {"name": "Home", "category": "top"}),
        ("group", {"groupId": 7, "traits": {"name": "ACME"}}, {"groupId": 7, "name": "ACME"}),
        ("alias", {"previousId": "anon-1"}, {"previousId": "anon-1"}),
    ],
)
def test_each_other_call_is_an_event_of_its_own_name(kind: str, fields: Any, properties: Any) -> None:
    made = event(kind, **fields)
    assert made.event == kind
    assert body(made.properties) == properties


def test_a_batch_lets_each_call_say_its_type() -> None:
    assert event(None, type="identify").event == "identify"


@pytest.mark.parametrize(
    ("kind", "fields", "told"),
    [
        (None, {"type": "purchase"}, "type: expected one of track, identify"),
        ("track", {"event": None}, "event: expected the name"),
        ("track", {"event": ""}, "event: expected the name"),
        ("track", {"userId": None}, "expected userId or anonymousId"),
        ("group", {}, "groupId: expected the group"),
        ("alias", {}, "previousId: expected who the user was"),
        ("track", {"userId": True}, "userId"),
        ("track", {"timestamp": "yesterday"}, "timestamp"),
    ],
)
def test_a_call_that_lacks_something_is_told_what(kind: str | None, fields: Any, told: str) -> None:
    made = called(kind, **fields)
    assert isinstance(made, Rejected)
    assert made.reason is Reason.MALFORMED
    assert told in made.detail


def test_a_visitor_without_an_account_goes_by_the_anonymous_id() -> None:
    assert event(userId=None, anonymousId="a1").uid == "a1"
    assert event(userId="", anonymousId=17).uid == "17"


def test_a_user_who_was_anonymous_before_keeps_that_id_in_the_context() -> None:
    made = event(anonymousId="a1", context={"ip": "1.2.3.4"})
    assert (made.uid, body(made.context)) == ("u1", {"anonymousId": "a1", "ip": "1.2.3.4"})


def test_a_batchs_context_is_that_of_calls_without_one() -> None:
    delivery = Delivery("shop", NOW, kind="track", context=msgspec.Raw(b'{"app":"x"}'))
    made = event_of(b'{"userId":"u","event":"e"}', 0, delivery)
    assert isinstance(made, Event)
    assert body(made.context) == {"app": "x"}


def test_null_in_place_of_an_object_is_an_empty_one() -> None:
    made = event(properties=None, context=None)
    assert (body(made.properties), body(made.context)) == ({}, {})


def test_a_clock_that_is_wrong_by_an_hour_is_corrected() -> None:
    """ReceivedAt - (sentAt - originalTimestamp), to the microsecond."""
    ahead = NOW_MS + AN_HOUR
    assert event(sent_at=ahead, timestamp=ahead - 2_500).timestamp == NOW_MS - 2_500
    assert event(sentAt=NOW_MS - AN_HOUR, originalTimestamp=NOW_MS - AN_HOUR - 1).timestamp == NOW_MS - 1


def test_a_calls_own_time_of_sending_wins_over_its_batchs() -> None:
    assert event(sent_at=NOW_MS, sentAt=NOW_MS + AN_HOUR, timestamp=NOW_MS + AN_HOUR).timestamp == NOW_MS


def test_the_time_that_a_request_took_is_no_wrong_clock() -> None:
    """Else each retry of a call would be another row."""
    sent = NOW_MS - LATENCY_MICROS // 1_000 + 1
    assert event(sent_at=sent, timestamp=NOW_MS - 9_000).timestamp == NOW_MS - 9_000


def test_a_call_without_a_time_happened_when_it_came() -> None:
    assert event().timestamp == NOW_MS


@pytest.mark.parametrize("stamp", [-1, 2**62, "0000-01-01T00:00:00Z", 10**17])
def test_a_time_out_of_this_world_is_refused(stamp: Any) -> None:
    made = called(timestamp=stamp)
    assert isinstance(made, Rejected)
    assert made.reason in (Reason.TIMESTAMP, Reason.MALFORMED)


def test_a_time_without_a_zone_is_refused() -> None:
    made = called(timestamp="2026-09-21T00:00:00")
    assert isinstance(made, Rejected)
    assert made.reason is Reason.TIMESTAMP


def test_a_call_without_an_id_gets_the_same_one_again() -> None:
    assert event(messageId=None).message_id == event(messageId=None).message_id
    assert event(messageId=None).message_id != event(messageId=None, timestamp=NOW_MS).message_id


def test_a_call_larger_than_32_kib_is_refused() -> None:
    made = called(properties={"text": "x" * MAX_CALL_BYTES})
    assert isinstance(made, Rejected)
    assert made.reason is Reason.TOO_LARGE


@pytest.mark.parametrize("raw", [b"", b"[]", b"7", b'{"userId":', b"\xff", b"[" * 30_000, b'{"event":"\\ud800"}'])
def test_what_is_no_call_is_refused(raw: bytes) -> None:
    assert isinstance(event_of(raw, 0, Delivery("shop", NOW, kind="track")), Rejected)


@pytest.mark.parametrize(
    ("raw", "made"),
    [
        (b"{}", b'{"a":"x"}'),
        (b' { "b" : 1 } ', b'{"a":"x","b" : 1 }'),
        (b'{"a":null}', b'{"a":null}'),
        (b'{"b":{"a":1}}', b'{"b":{"a":1}}'),
        (b"[]", b"[]"),
        (b"null", b'{"a":"x"}'),
    ],
)
def test_fields_are_put_before_those_of_an_object(raw: bytes, made: bytes) -> None:
    assert bytes(with_fields(msgspec.Raw(raw), {"a": "x", "none": None})) == made
