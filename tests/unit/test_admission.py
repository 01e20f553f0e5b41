import orjson
import pytest

from eventstore.events import Coordinates, Reason, Rejected, compile_schema
from eventstore.events.erasure import Erasures
from eventstore.ingest.admission import MICROS, Admission, Admitted, ClockRules, Erased, Expired, Verdict
from eventstore.tenancy import Registry, Tenant
from tests.builders import DAY_MS, NOW_MS, envelope, registry, tier

pytestmark = pytest.mark.unit

DAY = 86_400
HERE = Coordinates("events", 3, 1234)
T30 = tier("t30", days=30)


def verdict(value: bytes, key: bytes = b"shop:u1", of: Registry | None = None) -> Verdict:
    admission = Admission(of or registry(Tenant("shop", T30)), NOW_MS * 1000, ClockRules())
    return admission.verdict(value, key, lambda: HERE)


def admitted(value: bytes) -> Admitted:
    found = verdict(value)
    assert isinstance(found, Admitted), found
    return found


def aged(seconds: int) -> bytes:
    return envelope(timestamp=NOW_MS - seconds * 1000)


def test_a_row_carries_the_event_time_as_its_write_time() -> None:
    row = admitted(envelope(timestamp="2026-09-20T10:00:00.123456+02:00")).row
    assert row.write_micros == 1_789_891_200_123_456
    assert row.ts_ms == 1_789_891_200_123


def test_properties_are_the_producers_own_bytes() -> None:
    raw = b'{ "price":1.10,  "name":"caf\xc3\xa9", "name":2 }'
    value = envelope().replace(b'"properties":{}', b'"properties":' + raw)
    assert admitted(value).row.properties == raw


def test_a_tenant_goes_to_the_cluster_of_its_tier() -> None:
    assert admitted(envelope()).tier is T30


def test_the_bucket_is_that_of_the_event_time() -> None:
    moment = NOW_MS - 12 * DAY_MS
    assert admitted(envelope(timestamp=moment)).row.bid == T30.buckets.bid(moment)


@pytest.mark.parametrize(
    ("age", "ttl"),
    [
        (-3_600, None),
        (0, None),
        (3_599, None),
        (3_600, 30 * DAY - 3_600),
        (29 * DAY, DAY),
        (30 * DAY - 1, 1),
    ],
)
def test_a_late_row_is_bound_what_is_left_of_its_retention(age: int, ttl: int | None) -> None:
    assert admitted(aged(age)).row.ttl_seconds == ttl


@pytest.mark.parametrize("age", [30 * DAY, 31 * DAY, 4_000 * DAY])
def test_a_row_older_than_its_retention_is_expired_never_immortal(age: int) -> None:
    assert verdict(aged(age)) == Expired(T30)


def test_identity_is_the_message_id_or_else_the_place_of_the_record() -> None:
    given = admitted(envelope(message_id="9b2f8d2e-4c1a-4f7e-8a35-0d1c2b3a4f5e")).row
    assert given.eid.hex() == "9b2f8d2e4c1a4f7e8a350d1c2b3a4f5e"
    assert admitted(envelope()).row.eid == admitted(envelope()).row.eid
    elsewhere = Admission(registry(), NOW_MS * 1000, ClockRules()).verdict(
        envelope(), b"shop:u1", lambda: Coordinates("events", 3, 1235)
    )
    assert isinstance(elsewhere, Admitted)
    assert elsewhere.row.eid != admitted(envelope()).row.eid


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (b"", b"shop:u1", Reason.EMPTY),
        (b"{", b"shop:u1", Reason.MALFORMED),
        (envelope(uid=""), b"shop:", Reason.LIMIT),
        (envelope(tenant="other"), b"other:u1", Reason.UNKNOWN_TENANT),
        (envelope(tenant="closed"), b"closed:u1", Reason.DISABLED_TENANT),
        (envelope(), b"forum:u1", Reason.KEY_MISMATCH),
        (envelope(timestamp=NOW_MS + 2 * DAY_MS), b"shop:u1", Reason.TIMESTAMP),
        (envelope(tenant="strict", event="unheard"), b"strict:u1", Reason.UNKNOWN_EVENT),
        (envelope(tenant="strict", properties={"n": "one"}), b"strict:u1", Reason.SCHEMA),
    ],
)
def test_a_broken_record_is_rejected_with_its_reason(value: bytes, key: bytes, reason: Reason) -> None:
    numbers = compile_schema({"type": "object", "properties": {"n": {"type": "integer"}}})
    of = registry(
        Tenant("shop", T30),
        Tenant("closed", T30, enabled=False),
        Tenant("strict", T30, schemas={"product_viewed": numbers}, only_listed_events=True),
    )
    found = verdict(value, key, of)
    assert isinstance(found, Rejected)
    assert found.reason is reason


def test_an_event_without_a_schema_passes_unless_the_tenant_lists_its_events() -> None:
    loose = Tenant("shop", T30, schemas={"other": compile_schema(False)})
    assert isinstance(verdict(envelope(), of=registry(loose)), Admitted)


def test_the_rules_clock_is_the_one_passed_in() -> None:
    later = Admission(registry(Tenant("shop", T30)), NOW_MS * 1000 + 31 * DAY * MICROS, ClockRules())
    assert isinstance(later.verdict(envelope(), b"shop:u1", lambda: HERE), Expired)


def test_the_stored_json_is_still_the_same_document() -> None:
    properties = {"a": [1, 2.5, None, True], "b": {"c": "ü"}}
    assert orjson.loads(admitted(envelope(properties=properties)).row.properties) == properties


@pytest.mark.parametrize(("later_micros", "kind"), [(-1, Erased), (0, Erased), (1, Admitted)])
def test_an_event_up_to_the_erasure_is_left_out_and_a_later_one_is_stored(later_micros: int, kind: type) -> None:
    moment = (NOW_MS - DAY_MS) * 1000
    book = Admission(registry(), NOW_MS * 1000, ClockRules(), Erasures({b"shop:u1": moment - later_micros}))
    found = book.verdict(envelope(timestamp=NOW_MS - DAY_MS), b"shop:u1", lambda: HERE)
    assert isinstance(found, kind)
    other = book.verdict(envelope(uid="u2", timestamp=NOW_MS - DAY_MS), b"shop:u2", lambda: HERE)
    assert isinstance(other, Admitted)


def test_an_erased_event_never_becomes_a_dead_letter_that_would_keep_it() -> None:
    erasures = Erasures({b"gone:u1": NOW_MS * 1000})
    book = Admission(registry(), NOW_MS * 1000, ClockRules(), erasures)
    assert book.verdict(envelope(tenant="gone"), b"gone:u1", lambda: HERE) == Erased()
    erasures.hear(b"gone:u1", None)
    found = book.verdict(envelope(tenant="gone"), b"gone:u1", lambda: HERE)
    assert isinstance(found, Rejected)
    assert found.reason is Reason.UNKNOWN_TENANT
