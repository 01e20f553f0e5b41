from datetime import UTC, datetime

import pytest

from eventstore import __version__
from eventstore.errors import ConfigurationError
from eventstore.events import Coordinates, Reason, Rejected
from eventstore.stream import confirmed, dead_letter_summary
from eventstore.stream.confirmed import slices
from eventstore.stream.dead_letter import MENDS, DeadLetter, Marker, Stranger, Where, read
from eventstore.stream.dead_letter_summary import OTHERS, Summary
from eventstore.stream.dead_letters import Reject, dead_letter_headers
from eventstore.stream.headers import DEAD_LETTER, MAX_DETAIL_BYTES, origin, parse_coordinates, text_value

pytestmark = pytest.mark.unit

NOW = 1_790_000_000.25
OWN: list[tuple[str, bytes | None]] = [("traceparent", b"00-1"), ("nothing", None), ("es-reason", b"a stranger's")]


def reject(
    value: bytes | None = b'{"tenant":"shop"}',
    *,
    reason: Reason = Reason.SCHEMA,
    detail: str = "price: expected a number",
    key: bytes | None = b"forum:u1",
    headers: list[tuple[str, bytes | None]] | None = None,
) -> Reject:
    return Reject(
        Rejected(reason, detail), Coordinates("events", 3, 1234), key, value, headers or [], 1_789_000_000_000
    )


def letter(rejected: Reject) -> DeadLetter:
    found = read(1, 7, rejected.key, rejected.value, dead_letter_headers(rejected, NOW))
    assert isinstance(found, DeadLetter), found
    return found


@pytest.mark.parametrize("value", [b"", None, b"\xff", b'{"tenant":"shop"}'])
@pytest.mark.parametrize("headers", [[], OWN])
def test_a_reject_comes_back_as_it_was(value: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
    assert letter(reject(value, headers=headers)) == DeadLetter(
        partition=1,
        offset=7,
        reason="schema",
        detail="price: expected a number",
        source=Coordinates("events", 3, 1234),
        time=datetime.fromtimestamp(NOW, UTC),
        version=__version__,
        timestamp_ms=1_789_000_000_000,
        key=b"forum:u1",
        value=value,
        headers=headers,
    )


def test_the_time_of_a_reject_is_rfc_3339_in_utc() -> None:
    assert dict(dead_letter_headers(reject(), NOW))["es-time"] == b"2026-09-21T14:13:20.250Z"


def test_a_detail_is_short_and_valid_utf_8_whatever_it_quotes() -> None:
    found = letter(reject(detail="\ud800" + "é" * MAX_DETAIL_BYTES)).detail
    assert found.startswith("\\ud800é")
    assert len(found.encode()) <= MAX_DETAIL_BYTES
    assert text_value("éé", 3) == "é".encode()


def test_a_replayed_record_says_where_it_first_stood() -> None:
    headers = letter(reject(headers=OWN)).headers_for_replay()
    assert headers[:-1] == OWN
    assert origin(headers) == Coordinates("events", 3, 1234)


def test_a_record_that_is_rejected_again_keeps_its_first_place() -> None:
    first = letter(reject()).headers_for_replay()
    again = Reject(Rejected(Reason.SCHEMA, "x"), Coordinates("events", 3, 9999), b"k", b"v", first, 0)
    assert origin(letter(again).headers_for_replay()) == Coordinates("events", 3, 1234)
    assert letter(again).headers_for_replay() == first


@pytest.mark.parametrize(
    "text",
    [
        "",
        "events",
        "events/1",
        "events/1/",
        "/1/2",
        "events/-1/2",
        "events/1/²",
        "events/1/2/3",
        "events/1/" + "9" * 5000,
    ],
)
def test_an_origin_that_we_did_not_write_is_none(text: str) -> None:
    assert parse_coordinates(text) is None
    assert origin([("es-origin", text.encode()), ("es-origin", None), ("es-origin", b"\xff")]) is None


def test_records_without_headers_have_no_origin() -> None:
    assert origin(None) is None
    assert origin([]) is None


def test_coordinates_are_read_as_they_are_written() -> None:
    there = Coordinates("my.topic_1", 0, 2**62)
    assert parse_coordinates(str(there)) == there


@pytest.mark.parametrize(
    "headers",
    [
        [],
        OWN,
        [("es-replayed", b"events"), ("more", b"")],
        [(name, b"x") for name in DEAD_LETTER],
        [(name, b"\xff") for name in DEAD_LETTER],
        [(name, None) for name in DEAD_LETTER],
        [("es-replayed", None)],
    ],
)
def test_a_record_that_we_did_not_write_is_a_stranger(headers: list[tuple[str, bytes | None]]) -> None:
    assert read(1, 7, None, b'{"tenant":1}', headers) == Stranger(1, 7)


def test_a_marker_comes_back_as_it_was() -> None:
    marker = Marker(3, "events", [1, 5, 2**40])
    assert read(3, 99, None, marker.value(), marker.headers()) == marker


@pytest.mark.parametrize(
    ("value", "key", "tenant"),
    [
        (b'{"tenant":"shop"}', b"forum:u1", "shop"),
        (b'{"tenant":7}', b"forum:u1", "forum"),
        (b"\xff", b"forum:u1", "forum"),
        (None, None, ""),
        (b"", b"\xff:u", "\\xff"),
        (b'{"a":' * 100_000, None, ""),
    ],
)
def test_the_tenant_is_the_bodys_else_the_keys(value: bytes | None, key: bytes | None, tenant: str) -> None:
    assert letter(reject(value, key=key)).tenant == tenant


def test_every_reason_has_a_mend() -> None:
    assert set(MENDS) == set(Reason)


@pytest.mark.parametrize(
    ("conditions", "matches"),
    [
        ([], True),
        (["reason=schema"], True),
        (["reason=limit"], False),
        (["reason=limit", "reason=schema"], True),
        (["reason=schema", "tenant=forum"], False),
        (["tenant=shop", "topic=events", "partition=3"], True),
        (["partition=30"], False),
        (["after=2026-09-21T14:13:20.250Z"], True),
        (["after=2026-09-21T14:13:21+00:00"], False),
        (["before=2026-09-21T14:13:20.250Z"], False),
        (["before=2026-09-21T16:13:21+02:00"], True),
    ],
)
def test_conditions_on_different_fields_must_all_hold(conditions: list[str], matches: bool) -> None:  # noqa: FBT001
    assert Where(conditions).matches(letter(reject())) is matches


@pytest.mark.parametrize("condition", ["", "reason", "reason=", "colour=red", "after=yesterday", "before=2026-09-21"])
def test_a_condition_that_cannot_be_read_is_a_usage_error(condition: str) -> None:
    with pytest.raises(ConfigurationError):
        Where([condition])


def test_slices_are_bounded_by_count_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirmed, "MAX_SLICE_RECORDS", 3)
    monkeypatch.setattr(confirmed, "MAX_SLICE_BYTES", 10)
    sizes = [1, 1, 1, 1, 9, 2, 50, 1]
    made = [reject(b"x" * size, key=None) for size in sizes]
    cut = [[len(each.value or b"") for each in part] for part in slices(made)]
    assert cut == [[1, 1, 1], [1, 9], [2], [50], [1]]
    assert list(slices([])) == []


def test_a_summary_tells_what_waits_since_when_and_where_to_look() -> None:
    summary = Summary()
    for offset, (second, replayed) in enumerate([(5, True), (1, False), (9, False)]):
        made = reject()
        headers = dead_letter_headers(made, 1_790_000_000 + second)
        found = read(2, offset, made.key, made.value, headers)
        assert isinstance(found, DeadLetter)
        summary.add(found, replayed=replayed)
    group = summary.groups["schema", "shop", "events"]
    assert (group.waiting, group.replayed, group.latest) == (2, 1, "2/2")
    assert (group.first, group.last) == ("2026-09-21T14:13:21Z", "2026-09-21T14:13:29Z")


def test_a_summary_is_bounded_whatever_producers_call_their_tenants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_summary, "MAX_GROUPS", 3)
    summary = Summary()
    for number in range(10):
        summary.add(letter(reject(b'{"tenant":"t%d"}' % (number % 5))), replayed=False)
    assert len(summary.groups) == 4
    assert summary.groups[OTHERS].waiting == 4
    assert sum(group.waiting for group in summary.groups.values()) == 10
