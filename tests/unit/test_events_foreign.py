import orjson
import pytest

from eventstore.events import Event, Reason, Rejected, decode
from eventstore.events.foreign import Constant, EnvelopeMapping
from eventstore.events.outgoing import DAY_MICROS, Outgoing, Preparation, unchecked
from tests.builders import NOW_MS, envelope

pytestmark = pytest.mark.unit

EDIT = (
    b'{"time":"2015-09-12T00:46:58.771Z","channel":"#en.wikipedia","user":"Ann","delta":1.10,'
    b'"actor":{"login":"ann","id":7},"geo.city":"Rome","note":null}'
)
EDITS = EnvelopeMapping("channel", "user", Constant("edit"), "time", tenant_strip="#")


def mapped(mapping: EnvelopeMapping, record: bytes = EDIT) -> Event:
    found = mapping.event_of(record)
    assert isinstance(found, Event), found
    return found


def refused(mapping: EnvelopeMapping, record: bytes = EDIT) -> Rejected:
    found = mapping.event_of(record)
    assert isinstance(found, Rejected), found
    return found


def prepared(preparation: Preparation, record: bytes, position: int = 1) -> Outgoing:
    found = preparation.prepare(record, position)
    assert isinstance(found, Outgoing), found
    return found


def test_fields_come_from_their_paths_and_constants() -> None:
    event = mapped(EDITS)
    assert (event.tenant, event.uid, event.event) == ("en.wikipedia", "Ann", "edit")
    assert event.timestamp == 1_442_018_818_771


def test_what_is_not_mapped_becomes_properties_as_the_bytes_it_came_in() -> None:
    assert bytes(mapped(EDITS).properties) == (
        b'{"delta":1.10,"actor":{"login":"ann","id":7},"geo.city":"Rome","note":null}'
    )


def test_a_path_goes_into_objects_and_leaves_them_whole() -> None:
    event = mapped(EnvelopeMapping("actor.login", "actor.id", "geo.city", "time"))
    assert (event.tenant, event.uid, event.event) == ("ann", "7", "Rome")
    assert b'"actor":{"login":"ann","id":7}' in bytes(event.properties)


def test_properties_may_come_from_one_object() -> None:
    assert bytes(mapped(EnvelopeMapping("channel", "user", "user", "time", properties="actor")).properties) == (
        b'{"login":"ann","id":7}'
    )
    assert bytes(mapped(EnvelopeMapping("channel", "user", "user", "time", properties="note")).properties) == b"{}"


def test_a_field_that_is_not_there_is_named_with_its_path() -> None:
    assert refused(EnvelopeMapping("channel", "actor.name", "user", "time")) == Rejected(
        Reason.MALFORMED, "uid: expected text or a whole number at `actor.name`, found none"
    )


@pytest.mark.parametrize("value", [b"true", b"1.5", b"[]", b"{}"])
def test_a_uid_is_text_or_a_whole_number(value: bytes) -> None:
    found = refused(EDITS, EDIT.replace(b'"Ann"', value))
    assert found == Rejected(Reason.MALFORMED, f"uid: expected text or a whole number at `user`, got {value.decode()}")


TIMES = {
    "seconds": ("1442018818", 1_442_018_818_000),
    "seconds with a fraction": ("1442018818.771", 1_442_018_818_771),
    "milliseconds": ("1442018818771", 1_442_018_818_771),
    "microseconds": ("1442018818771000", 1_442_018_818_771),
    "a zone": ('"2015-09-12T02:46:58.771+02:00"', 1_442_018_818_771),
    "a space": ('"2015-09-12 00:46:58.771Z"', 1_442_018_818_771),
    "the last second of a size": ("99999999999", 99_999_999_999_000),
    "the first millisecond of a size": ("100000000000", 100_000_000_000),
}


@pytest.mark.parametrize(("raw", "millis"), TIMES.values(), ids=TIMES)
def test_times_are_told_by_their_size(raw: str, millis: int) -> None:
    assert mapped(EDITS, EDIT.replace(b'"2015-09-12T00:46:58.771Z"', raw.encode())).timestamp == millis


@pytest.mark.parametrize("raw", ['"2015-09-12T00:46:58"', '"yesterday"', "-1", "1e300", "true", "null", '"1442018818"'])
def test_a_time_that_cannot_be_told_is_refused(raw: str) -> None:
    assert refused(EDITS, EDIT.replace(b'"2015-09-12T00:46:58.771Z"', raw.encode())).reason is Reason.TIMESTAMP


@pytest.mark.parametrize("record", [b"", b"[]", b"x", EDIT[:-1], b'{"channel":"\xff"}', b"[" * 100_000])
def test_a_record_that_is_no_object_is_malformed(record: bytes) -> None:
    assert refused(EDITS, record).reason is Reason.MALFORMED


def test_objects_nested_too_deeply_to_be_read_are_malformed() -> None:
    assert refused(EDITS, b'{"channel":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001).reason is Reason.MALFORMED


def test_the_same_record_at_the_same_place_gets_the_same_message_id() -> None:
    preparation = Preparation(NOW_MS * 1_000, EDITS)
    shifted = Preparation(NOW_MS * 1_000, EDITS, shift_micros=DAY_MICROS)
    ids = [
        decoded(prepared(preparation, EDIT)).message_id,
        decoded(prepared(shifted, EDIT)).message_id,
        decoded(prepared(preparation, EDIT, 2)).message_id,
        decoded(prepared(preparation, EDIT + b" ", 1)).message_id,
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def decoded(outgoing: Outgoing) -> Event:
    event = decode(outgoing.value)
    assert isinstance(event, Event)
    return event


def test_a_message_id_of_the_source_is_kept() -> None:
    mapping = EnvelopeMapping("channel", "user", Constant("edit"), "time", message_id="actor.id")
    assert decoded(prepared(Preparation(NOW_MS * 1_000, mapping), EDIT)).message_id == "7"


def test_an_envelope_with_a_message_id_is_published_as_the_bytes_it_came_in() -> None:
    record = b" " + envelope(message_id="m1", properties={"a": 1})
    assert prepared(Preparation(NOW_MS * 1_000), record) == Outgoing(b"shop:u1", record, NOW_MS * 1_000)


def test_an_envelope_without_a_message_id_gets_one_and_keeps_the_rest() -> None:
    record = envelope(properties={"a": 1}, context={"b": [1.10]})
    made = orjson.loads(prepared(Preparation(NOW_MS * 1_000), record).value)
    assert made.pop("message_id")
    assert made == orjson.loads(record)


def test_a_shift_moves_the_time_and_nothing_else() -> None:
    record = envelope(message_id="m1", timestamp="2015-09-12T00:46:58.771123Z")
    made = prepared(Preparation(NOW_MS * 1_000, shift_micros=2_000_000), record)
    assert orjson.loads(made.value) == orjson.loads(record) | {"timestamp": "2015-09-12T00:47:00.771123Z"}


@pytest.mark.parametrize(
    ("shift", "reason"),
    [(-2 * NOW_MS * 1_000, Reason.TIMESTAMP), (DAY_MICROS, None), (DAY_MICROS + 1, Reason.TIMESTAMP)],
)
def test_a_time_must_be_right_once_shifted(shift: int, reason: Reason | None) -> None:
    found = Preparation(NOW_MS * 1_000, shift_micros=shift).prepare(envelope(), 1)
    assert (found.reason if isinstance(found, Rejected) else None) is reason


def test_an_event_that_breaks_a_limit_is_refused_before_it_is_published() -> None:
    preparation = Preparation(NOW_MS * 1_000)
    for message_id in ("m1", None):
        found = preparation.prepare(envelope(uid="", message_id=message_id), 1)
        assert isinstance(found, Rejected)
        assert found.reason is Reason.LIMIT


def test_an_event_that_grows_too_large_by_its_mapping_is_refused() -> None:
    record = EDIT[:-1] + b',"long":"' + b"x" * (32 * 1_024 - len(EDIT)) + b'"}'
    found = Preparation(NOW_MS * 1_000, EDITS).prepare(record, 1)
    assert isinstance(found, Rejected)
    assert found.reason is Reason.TOO_LARGE


def test_the_time_of_a_record_is_told_without_the_rest_of_it() -> None:
    preparation = Preparation(NOW_MS * 1_000, EDITS)
    assert preparation.event_micros(EDIT) == 1_442_018_818_771_000
    assert isinstance(preparation.event_micros(b"x"), Rejected)


def test_an_unchecked_record_has_the_key_its_body_claims_or_none() -> None:
    assert unchecked(b'{"tenant":"a","uid":"b","nonsense":1}').key == b"a:b"
    assert unchecked(b"nonsense").key is None
