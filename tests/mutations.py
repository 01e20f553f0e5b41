"""Broken records by the hundred thousand: sound ones, mutated the same way in every run with the same seed.

Hypothesis finds small counterexamples to properties; this is for sheer numbers, at a few microseconds a record.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random
from typing import Any, Final, NamedTuple
from uuid import UUID

from confluent_kafka import Message

from eventstore.events import compile_schema
from eventstore.tenancy import Registry, Tenant
from tests.builders import DAY_MS, NOW_MS, cluster, registry, tier

REGISTRY: Final[Registry] = registry(
    Tenant("shop", tier("t30")),
    Tenant("forum", tier("t15", days=15, width_days=5, on=cluster("c15"))),
    Tenant(
        "strict",
        tier("t30"),
        schemas={
            "seen": compile_schema(
                {
                    "type": "object",
                    "required": ["n"],
                    "properties": {
                        "n": {"type": "integer"},
                        "s": {"type": "string", "maxLength": 9},
                        "l": {"items": {"type": "string"}},
                    },
                }
            )
        },
        only_listed_events=True,
    ),
    Tenant("closed", tier("t30"), enabled=False),
)


class Record(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None = None

    def message(self, offset: int) -> Message:
        return Message(
            topic="events", partition=1, offset=offset, key=self.key, value=self.value, headers=self.headers,
            timestamp=(1, NOW_MS),
        )  # fmt: skip


def mutants(seed: int, count: int) -> Iterator[Record]:
    """Records with none to four things wrong."""
    random = Random(seed)
    for _ in range(count):
        record = _sound(random)
        for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
            record = random.choice(_MUTATIONS)(random, record)
        yield record


# ------------------------------------------------------------------------------------------------------- sound records

_BODIES: Final[tuple[dict[str, Any], ...]] = (
    {}, {"n": 1}, {"n": 1, "s": "short", "l": ["a", "b"]}, {"n": -1, "price": 1.5, "tags": ["a", {"b": [None, True]}]},
    {"n": 0, "title": "größe ☕ 𝄞", "text": 'a "quoted" \\ [{[{'}, {"n": 2, "a": {"b": {"c": {"d": {"e": [[[1]]]}}}}},
)  # fmt: skip
_AGES: Final = (
    0,
    1,
    1_000,
    3_599_999,
    3_600_000,
    5 * DAY_MS,
    14 * DAY_MS,
    15 * DAY_MS,
    29 * DAY_MS,
    31 * DAY_MS,
    -DAY_MS,
)


def _sound(random: Random) -> Record:
    return _impressions(random) if not random.randrange(8) else _event(random)


def _impressions(random: Random) -> Record:
    at = NOW_MS - random.choice(_AGES)
    posts = [
        "p1",
        {"id": "p2", "at": _stamp(random, at)},
        "größe",
        *(f"p{number}" for number in range(random.choice((0, 3, 40)))),
    ]
    fields = {"tenant": "shop", "uid": "u1", "at": _stamp(random, at), "posts": posts}
    return Record(b"shop:u1", _encoded(random, fields))


def _event(random: Random) -> Record:
    tenant, uid = random.choice(("shop", "shop", "forum", "strict")), random.choice(("u1", "u2", "u3", "a:b", "ü"))
    fields = {
        "tenant": tenant,
        "uid": uid,
        "event": "seen",
        "message_id": str(UUID(int=random.getrandbits(128))),
        "timestamp": _stamp(random, NOW_MS - random.choice(_AGES)),
        "properties": random.choice(_BODIES[1:] if tenant == "strict" else _BODIES),
    }
    if not random.randrange(4):
        fields["context"] = random.choice(_BODIES)
    if not random.randrange(4):
        del fields["message_id"]
    return Record(f"{tenant}:{uid}".encode(), _encoded(random, fields))


def _stamp(random: Random, millis: int) -> int | str:
    if random.randrange(2):
        return millis
    return datetime.fromtimestamp(millis / 1_000, UTC).isoformat(
        timespec=random.choice(("milliseconds", "microseconds"))
    )


def _encoded(random: Random, fields: dict[str, Any]) -> bytes:
    ascii_only, spaces = bool(random.randrange(2)), random.choice(((",", ":"), (", ", ": ")))
    return json.dumps(fields, ensure_ascii=ascii_only, separators=spaces).encode()


# ----------------------------------------------------------------------------------------------------------- mutations

_PIECES: Final = (
    b"NaN", b"-Infinity", b"1e999", b"-0", b"0.1", b"9223372036854775808", b"-9223372036854775809", b"9" * 400, b"01",
    b"null", b"true", b'""', b"{}", b"[]", b'{"a":1,"a":2}', b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b" ", b"\n",
    b"\0", b"\x7f", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xe2\x82", b"\\u0000",
    b"\\ud800", b"\\udc00", b"\\ud83d\\ude00", b"\\u00", b"\\x41", b"[" * 40 + b"]" * 40, b'{"a":' * 40 + b"1" + b"}" * 40,
    b"[" * 10_000, b"[[]," * 5_000, b'"' * 3_000, b"\\\\" * 3_000, b" " * 33_000, b"x" * 300, b'"x":"' + b"y" * 20_000 + b'",',
    b'["[",[],{}],' * 2_500,
)  # fmt: skip
_VALUES: Final = (
    b"null", b"true", b"0", b"-1", b"1.0", b"1e3", b"9223372036854775807", b"9223372036854775808", b"18446744073709551616",
    b"NaN", b"9" * 5_000, b'""', b'" "', b'"\\u0000"', b'"\\ud800"', b'"\xff"', b'"' + b"x" * 100 + b'"', b'"' + b"x" * 129 + b'"',
    b'"' + b"x" * 257 + b'"', b'"' + b"x" * 32_000 + b'"', b"[]", b"{}", b"[1]", b'{"n":"one"}', b'{"n":1,"s":"' + b"s" * 32_000 + b'"}',
    b'{"n":1,"l":[' + b"1," * 9_000 + b"1]}", b'{"n":1,"a":' + b"[[]," * 33 + b"[]" + b"]" * 33 + b"}", b'{"a":[' + b"[]," * 10_000 + b"[]]}",
    b'{"n":1,"a":[' + b"[]," * 4_093 + b"[]]}", b'{"n":1,"a":[' + b"[]," * 4_094 + b"[]]}",
    b'"1970-01-01T00:00:00Z"', b'"2100-01-01T00:00:00Z"', b'"2026-09-21T10:00:00"', b'"1790000000000"', b'"0001-01-01T00:00:00+23:59"',
    b'"9999-12-31T23:59:59.999999-23:59"', b'"2026-09-21T23:59:60Z"', b'"shop"', b'"closed"', b'"nobody"', b'"' + b"n" * 20_000 + b'"',
    b'"strict"', b'"9b2f8d2e-4c1a-4f7e-8a35-0d1c2b3a4f5e"', b'"{9b2f8d2e4c1a4f7e8a350d1c2b3a4f5e}"', b'"------------------------------------"',
)  # fmt: skip
_NAMES: Final = (
    b"tenant",
    b"uid",
    b"event",
    b"message_id",
    b"timestamp",
    b"properties",
    b"context",
    b"posts",
    b"at",
    b"extra",
    b"",
)
_KEYS: Final = (
    None, b"", b":", b"shop", b"shop:", b"shop:u1", b"forum:u1", b"strict:u2", b"nobody:u1", b"closed:u1", b"\xff:u1", b"shop:u1\0",
    b"shop:" + b"u" * 70_000, b"\xff" * 70_000,
)  # fmt: skip
_ORIGINS: Final = (
    b"events/0/7", b"events/0", b"a/b/0/7", b"/0/7", b"events/-1/7", b"events/0/" + b"9" * 40, b"\xff/0/1", b"", None,
)  # fmt: skip

Mutation = Callable[[Random, Record], Record]


def _bytes(change: Callable[[Random, bytes], bytes]) -> Mutation:
    return lambda random, record: record._replace(value=change(random, record.value)) if record.value else record


def _place(random: Random, value: bytes) -> int:
    return random.randrange(len(value) + 1)


def _truncate(random: Random, value: bytes) -> bytes:
    return value[: _place(random, value)]


def _flip(random: Random, value: bytes) -> bytes:
    at = random.randrange(len(value))
    return value[:at] + bytes([value[at] ^ 1 << random.randrange(8)]) + value[at + 1 :]


def _cut(random: Random, value: bytes) -> bytes:
    at = _place(random, value)
    return value[:at] + value[at + random.randrange(1, 9) :]


def _double(random: Random, value: bytes) -> bytes:
    at = _place(random, value)
    end = at + random.randrange(1, 40)
    return value[:end] + value[at:end] + value[end:]


def _insert(random: Random, value: bytes) -> bytes:
    at = _place(random, value)
    return value[:at] + random.choice(_PIECES) + value[at:]


def _insert_in_string(random: Random, value: bytes) -> bytes:
    """Where it does not end the document."""
    at = value.find(b'"', _place(random, value)) + 1
    return value[:at] + random.choice(_PIECES) + value[at:]


def _add_field(random: Random, value: bytes) -> bytes:
    """A field more, or one twice: of two the last one counts."""
    return value[:-1] + b',"' + random.choice(_NAMES) + b'":' + random.choice(_VALUES) + b"}"


def _put_field_first(random: Random, value: bytes) -> bytes:
    return b'{"' + random.choice(_NAMES) + b'":' + random.choice(_VALUES) + b"," + value[1:]


def _rename_field(random: Random, value: bytes) -> bytes:
    return value.replace(b'"' + random.choice(_NAMES) + b'"', b'"' + random.choice(_NAMES) + b'"', 1)


def _join(random: Random, value: bytes) -> bytes:
    return value[: _place(random, value)] + (_sound(random).value or b"")[_place(random, value) // 2 :]


def _pad(random: Random, value: bytes) -> bytes:
    """To one side or the other of the largest size."""
    return value + b" " * (32 * 1_024 + random.randrange(-1, 2) - len(value))


def _noise(random: Random, value: bytes) -> bytes:
    return random.randbytes(min(len(value), 60))


def _value(random: Random, record: Record) -> Record:
    return record._replace(value=random.choice((None, b"")))


def _key(random: Random, record: Record) -> Record:
    return record._replace(key=random.choice(_KEYS))


def _headers(random: Random, record: Record) -> Record:
    return record._replace(headers=[("es-origin", random.choice(_ORIGINS)), ("trace", b"\xff")])


def _agreeing_key(_: Random, record: Record) -> Record:
    """The key that the mutated body asks for, so that later rules are reached."""
    try:
        fields = json.loads(record.value or b"")
        return record._replace(key=f"{fields['tenant']}:{fields['uid']}".encode())
    except (ValueError, TypeError, KeyError, RecursionError):
        return record


_MUTATIONS: Final[tuple[Mutation, ...]] = (
    *map(_bytes, (
        _truncate, _flip, _flip, _cut, _double, _insert, _insert_in_string, _insert_in_string, _rename_field, _join, _pad, _noise,
    )),
    *[lambda random, record: _agreeing_key(random, _bytes(_add_field)(random, record))] * 6,
    _bytes(_put_field_first), _value, _key, _headers,
)  # fmt: skip
