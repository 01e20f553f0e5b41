"""The accelerator does what the Python beside it does, byte for byte, and takes what is plainly sound."""

import json
import random
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from eventstore.accelerator import ACCELERATOR, Accelerator, found
from eventstore.events import Rejected, compile_schema
from eventstore.events.cells import FRESH, STATEMENTS, encode
from eventstore.events.row import Row
from eventstore.ingest.admission import ClockRules
from eventstore.ingest.express import Express, Sorted
from eventstore.store.lane import frames
from eventstore.store.lane.frames import Prepared
from eventstore.stream.chunk import Chunk, Member
from eventstore.tenancy import Registry, Tenant
from tests.builders import DAY_MS, NOW_MS, cluster, latest, registry, tier

pytestmark = [
    pytest.mark.properties,
    pytest.mark.skipif(ACCELERATOR is None, reason="the accelerator is not built: `make accelerate`"),
]

NOW_MICROS = NOW_MS * 1000
MUTATIONS = 20_000
NAMED = compile_schema({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
REGISTRY = registry(
    Tenant("shop", tier("t30")),
    Tenant("forum", tier("t15", days=15, width_days=5, on=cluster("c15"))),
    Tenant("strict", tier("t30"), schemas={"seen": NAMED}, only_listed_events=True),
)
UUID = "9b2f8d2e-4c1a-4f7e-8a35-0d1c2b3a4f5e"
UIDS = ["u1", "größe", 'q"uote', "back\\slash", "a:b", "tab\t"]
PROPERTIES = [
    b"{}", b'{"n":1}', b'{ "n" : 1 , "list" : [ 1 , -2.5e+3 , null, true, false, "x", [], {} ] }', '{"ü":"größe 😀 日本"}'.encode(),
    rb'{"e":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00","deep":' + b"[" * 20 + b"]" * 20 + b"}",
    b'{"long":"' + b"x" * 300 + b'"}', b'{"n":0,"m":-0,"o":10.25E-7}',
]  # fmt: skip


def accelerator() -> Accelerator:
    assert ACCELERATOR is not None
    return ACCELERATOR


def record(
    properties: bytes, *, tenant: str = "shop", uid: str = "u1", stamp: object = NOW_MS, event: str = "seen", context: bytes | None = None,
    message_id: str = UUID,
) -> tuple[bytes, bytes]:  # fmt: skip
    """(key, value)."""
    head = json.dumps(
        {"tenant": tenant, "uid": uid, "event": event, "message_id": message_id, "timestamp": stamp}, ensure_ascii=False
    )
    tail = b"" if context is None else b', "context": ' + context
    return f"{tenant}:{uid}".encode(), head[:-1].encode() + b', "properties": ' + properties + tail + b"}"


def chunk_of(records: list[tuple[bytes, bytes | None]]) -> Chunk:
    messages = [
        Message(topic="events", partition=1, offset=offset, key=key, value=value, headers=None, timestamp=(1, NOW_MS))
        for offset, (key, value) in enumerate(records)
    ]
    return Chunk("events", 1, messages, 0, Member())


def warmed(way: Accelerator | None, of: Registry = REGISTRY) -> Express:
    """With every sender known."""
    express = Express(ClockRules(), accelerator=way)
    senders = [record(b'{"n":1}', tenant=tenant, uid=uid) for tenant in of.tenants for uid in UIDS]
    express.sort(chunk_of([*senders]), of, NOW_MICROS)
    return express


def left(express: Express, *records: tuple[bytes, bytes]) -> int:
    """How many records the accelerator leaves to Python."""
    chunk = chunk_of([*records])
    return len(accelerator().take_plain(
        chunk.keys(), chunk.values(), express._senders, express._names, lambda *_: None,
        (NOW_MICROS, NOW_MICROS - 3_600_000_000, NOW_MICROS + 86_400_000_000), (32_768, 32),
    ))  # fmt: skip


def told(found: Sorted) -> object:
    """All that sorting found, whatever the order of rows in a batch."""
    rows = {name: sorted(sorted(batch) for batch in batches) for name, batches in found.batches.items()}
    rejects = [(rejected, message.offset()) for rejected, message in found.rejects]
    return {name: batches for name, batches in rows.items() if batches}, rejects, found.expired, found.erased


def assert_the_same(records: list[tuple[bytes, bytes | None]]) -> None:
    chunk = chunk_of(records)
    fast, slow = (warmed(way).sort(chunk, REGISTRY, NOW_MICROS) for way in (accelerator(), None))
    assert told(fast) == told(slow)


def mutated(value: bytes, chance: random.Random) -> bytes:
    """With a few bytes changed, gone, doubled or put in: mostly such as mean something in JSON."""
    raw = bytearray(value)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        place = chance.randrange(len(raw) + 1)
        telling = chance.choice(b'{}[]",:\\ \t\n0123456789-+.eEtfnuTZ\x00\x1f\x7f\x80\xbf\xc2\xe0\xed\xf0\xf4\xff')
        match chance.randrange(5):
            case 0:
                raw[place : place + 1] = bytes([telling])
            case 1:
                raw[place:place] = bytes([telling])
            case 2:
                del raw[place : place + chance.choice([1, 1, 2, 8])]
            case 3:
                raw[place:place] = raw[max(0, place - chance.randrange(1, 20)) : place]
            case _:
                del raw[place:]
    return bytes(raw)


def mangled(chance: random.Random) -> str:
    """A UUID with hyphens and digits moved about; mostly still of its length."""
    text = [*UUID]
    for _ in range(chance.randrange(4)):
        place, other = chance.randrange(len(text)), chance.randrange(len(text))
        match chance.randrange(4):
            case 0:
                text[place], text[other] = text[other], text[place]
            case 1:
                text[place] = chance.choice("-09afAFgx ")
            case 2:
                text[place : place + 2] = "-", text[place]
            case _:
                text[min(place, other)] = text[max(place, other)] = "-"
    return "".join(text)[: chance.choice([36, 36, 36, 35, 37])]


def test_mangled_message_ids_make_the_same_identity() -> None:
    """Two hyphens too many once left a byte of the identity to what the record before had there."""
    chance = random.Random(20_260_923)
    records: list[tuple[bytes, bytes | None]] = [
        *[record(b"{}", message_id=mangled(chance)) for _ in range(5_000)],
        record(b"{}", message_id="-ab-cdef-bbbb-cccc-dddd-eeeeeeeeeeee"),
        record(b"{}", message_id="ab-cdef--bbbb-cccc-dddd-eeeeeeeeeee-"),
    ]
    assert_the_same(records)


def test_mutated_records_come_to_the_same_verdicts() -> None:
    chance = random.Random(20_260_922)
    stamps: list[object] = [
        NOW_MS,
        NOW_MS - 2 * DAY_MS,
        NOW_MS - 20 * DAY_MS,
        NOW_MS - 40 * DAY_MS,
        "2026-09-20T10:00:00.123+02:00",
    ]
    for _ in range(MUTATIONS // 500):
        records: list[tuple[bytes, bytes | None]] = []
        for _ in range(500):
            key, value = record(
                chance.choice(PROPERTIES), tenant=chance.choice(["shop", "forum", "strict"]), uid=chance.choice(UIDS),
                stamp=chance.choice(stamps), context=chance.choice([None, None, *PROPERTIES]),
            )  # fmt: skip
            records.append((key, mutated(value, chance)))
        assert_the_same(records)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=12)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)  # fmt: skip


@given(
    properties=st.dictionaries(st.text(max_size=8), json_values, max_size=5),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_whatever_json_writes_is_taken_as_it_is(
    *, properties: dict[str, Any], ascii_only: bool, indent: int | None
) -> None:
    try:
        body = json.dumps(properties, ensure_ascii=ascii_only, indent=indent).encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8
        return
    express = warmed(accelerator())
    if not any("\ud800" <= character <= "\udfff" for character in json.loads(body, object_pairs_hook=str)):
        assert left(express, record(body)) == 0
    assert_the_same([record(body), record(b"{}", context=body)])


@given(
    st.datetimes(datetime(1960, 1, 1), datetime(2026, 9, 30)), st.sampled_from([0, 1, 3, 6]),
    st.one_of(st.none(), st.integers(-1439, 1439)),
)  # fmt: skip
def test_a_time_is_read_as_the_decoder_reads_it(moment: datetime, places: int, offset: int | None) -> None:
    zone = UTC if offset is None else timezone(timedelta(minutes=offset))
    stamp = moment.replace(tzinfo=zone).isoformat(timespec="microseconds")
    digits = stamp[19 : 20 + places] if places else ""
    assert_the_same([record(b"{}", stamp=stamp[:19] + digits + ("Z" if offset is None else stamp[26:]))])


@pytest.mark.parametrize(
    "stamp", [NOW_MS, 0, "2024-02-29T23:59:59Z", "2026-09-20T10:00:00.5-23:59", "1970-01-01T00:00:00Z"]
)
def test_plain_times_are_taken_and_others_left(stamp: object) -> None:
    way = accelerator()
    express = warmed(way, registry(Tenant("shop", tier("for-ever", days=24_000))))
    assert left(express, record(b"{}", stamp=stamp)) == 0
    for other in (
        "2026-02-29T00:00:00Z",
        "2026-09-20T24:00:00Z",
        "2026-09-20T10:00:00",
        "2026-09-20T10:00:00.1234567Z",
        -1,
        True,
        1.5,
    ):
        assert left(express, record(b"{}", stamp=other)) == 1


@pytest.mark.parametrize("properties", PROPERTIES)
def test_plain_records_are_taken(properties: bytes) -> None:
    express = warmed(accelerator())
    assert left(express, record(properties), record(b"{}", uid="größe", tenant="forum", context=properties)) == 0


@pytest.mark.parametrize(
    "value",
    [
        record(b'{"a":01}')[1], record(b'{"a":"\x01"}')[1], record(b'{"a":"\xff"}')[1], record(b'{"a":"\xed\xa0\x80"}')[1],
        record(rb'{"a":"\ud800"}')[1], record(b'{"a":1,}')[1], record(b"[]")[1], record(b"null")[1], record(b'{"a":' * 33 + b"1" + b"}" * 33)[1],
        record(b"{}")[1] + b"\0", record(b"{}")[1] + b"x", record(b"{}", event="never seen")[1], record(b"{}", uid="u2")[1],
        record(b"{}")[1].replace(b'"uid"', b'"u\\u0069d"'), record(b"{}")[1].replace(b'"uid"', b'"uuid"'), b"", b"{", b"{}",
        record(b"{}")[1].replace(b'"uid": "u1"', b'"uid": "u1", "uid": "u1"'), record(b'{"a":"' + b"x" * 33_000 + b'"}')[1],
        record(b"{}")[1].replace(b"9b2f", b"9g2f"), record(b"{}")[1].replace(b"8d2e-", b"8d2e_"),
    ],
    ids=range(22),
)  # fmt: skip
def test_what_is_not_plain_is_left(value: bytes) -> None:
    assert left(warmed(accelerator()), (b"shop:u1", value)) == 1


def test_records_without_key_or_value_are_left() -> None:
    key, value = record(b"{}")
    express = warmed(accelerator())
    positions = accelerator().take_plain(
        [None, key, b"nobody"], [value, None, value], express._senders, express._names, None, (NOW_MICROS, 0, NOW_MICROS), (32_768, 32)
    )  # fmt: skip
    assert positions == [0, 1, 2]


def test_a_bug_in_a_check_is_not_swallowed() -> None:
    def broken(*_: object) -> Rejected | None:
        raise ZeroDivisionError

    express = warmed(accelerator())
    key, value = record(b'{"n":1}', tenant="strict")
    with pytest.raises(ZeroDivisionError):
        accelerator().take_plain(
            [key], [value], express._senders, express._names, broken, (NOW_MICROS, 0, NOW_MICROS), (32_768, 32)
        )


def test_arguments_of_a_wrong_kind_are_refused() -> None:
    native: Any = accelerator()
    arguments: list[Any]
    wrong: tuple[Any, ...]
    for arguments in ([], [[], [], {}, {}, None, (1, 2), (1, 2)], [[b"k"], [], {}, {}, None, (1, 2, 3), (1, 2)],
                      [[b"k"], [b"v"], {b"k": object()}, {}, None, (1, 2, 3), (1, 2)]):  # fmt: skip
        with pytest.raises((TypeError, ValueError, AttributeError)):
            native.take_plain(*arguments)
    prepared = Prepared.of({FRESH: b"f"})
    for wrong in ((prepared, [[b"\0\x09"]], []), (prepared, [[]], [1]), (prepared, [["no"]], [1]), ((b"",), [], []),
                  (prepared, [[b"\0\x0a"]], [1]), (({}, "no"), [], []), (({b"\0": (b"", b"")}, b""), [], []),
                  (({FRESH: b"f"}, b""), [], []), ((dict.fromkeys((bytes([0, n]) for n in range(17)), (b"", b"")), b""), [], []),
                  (prepared, [[b"\0\x09"]], [-1]), (prepared, [[b"\0\x09"]], ["1"]), (prepared, [b"no"], [1])):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            native.wire(*wrong)
    with pytest.raises(TypeError):
        native.acknowledged(bytearray(9))


rows = st.builds(
    Row, uid=st.text(st.characters(codec="utf-8"), max_size=9), tenant=st.just("shop"), bid=st.integers(0, 9), ts_ms=st.integers(0, 2**45),
    eid=st.binary(min_size=16, max_size=16), event=st.just("seen"), properties=st.binary(max_size=9), context=st.binary(max_size=9),
    write_micros=st.integers(0, 2**60), ttl_seconds=st.one_of(st.none(), st.integers(1, 2**31 - 1)),
)  # fmt: skip


@given(st.lists(st.lists(rows, min_size=1, max_size=4), max_size=5), st.randoms())
def test_frames_are_the_same(batches: list[list[Row]], chance: random.Random) -> None:
    prepared = Prepared.of({head: name.encode() for head, name in STATEMENTS.items()})
    encoded = [[chance.choice([encode, latest])(row) for row in batch] for batch in batches]
    streams = [chance.randrange(2**15) for _ in batches]
    assert accelerator().wire(prepared, encoded, streams) == frames.wire(prepared, encoded, streams)


parts = st.one_of(
    st.binary(max_size=12),
    st.builds(
        lambda version, flags, stream, opcode, body, lie: frames.HEADER.pack(version, flags, stream, opcode, len(body) + lie) + body,
        st.sampled_from([0x84, 0x84, 0x84, 0x04]), st.sampled_from([0, 0, 0, 8]), st.integers(-(2**15), 2**15 - 1),
        st.sampled_from([8, 8, 8, 0, 12]), st.binary(max_size=9), st.sampled_from([0, 0, 0, 0, 1, -10, 2**30]),
    ),
)  # fmt: skip


@given(st.lists(parts, max_size=8).map(b"".join))
def test_answers_are_read_the_same(buffer: bytes) -> None:
    assert accelerator().acknowledged(buffer) == frames.acknowledged(buffer)


def test_the_environment_can_forbid_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found() is ACCELERATOR
    monkeypatch.setenv("EVENTSTORE_PURE", "1")
    assert found() is None
