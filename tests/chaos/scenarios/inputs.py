"""Records that no producer should send."""

from collections.abc import Callable, Iterator, Mapping
from itertools import count, islice
from typing import Any, Final

import orjson

from eventstore.clock import now_ms
from tests.chaos.field import EVERYBODY, Field
from tests.chaos.load import DAY_MS, Mix, Record, mingled, records, rejected

BAD_SHARE: Final = 0.1
HALTED: Final = 3
"""The exit code of a worker that refuses for safety."""

KEY: Final = b"shop:u1"


def _envelope(**changes: Any) -> bytes:
    fields = {"tenant": "shop", "uid": "u1", "event": "e", "timestamp": now_ms(), "properties": {}}
    return orjson.dumps(fields | changes, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _raw(name: str, raw: bytes) -> bytes:
    return _envelope(**{name: orjson.Fragment(raw)})


def _nested(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


BAD: Final[Mapping[str, tuple[Callable[[], tuple[bytes | None, bytes | None]], set[str]]]] = {
    "truncated JSON": (lambda: (KEY, _envelope()[:-3]), {"malformed"}),
    "invalid UTF-8": (lambda: (KEY, _raw("event", b'"\xff"')), {"malformed"}),
    "invalid UTF-8 in properties": (lambda: (KEY, _raw("properties", b'{"a":"\xff"}')), {"malformed"}),
    "lone surrogate": (lambda: (KEY, _raw("event", rb'"\ud800"')), {"malformed"}),
    "NaN": (lambda: (KEY, _raw("properties", b'{"a":NaN}')), {"malformed"}),
    "2**63": (lambda: (KEY, _raw("timestamp", b"9223372036854775808")), {"timestamp", "malformed"}),
    "duplicate keys, the last one another user's": (
        lambda: (KEY, _envelope().replace(b'"uid":"u1"', b'"uid":"u1","uid":"u2"')),
        {"key_mismatch"},
    ),
    "depth 10,000": (lambda: (KEY, _raw("properties", b"[" * 10_000 + b"]" * 10_000)), {"malformed"}),
    "depth 33": (lambda: (KEY, _raw("properties", _nested(33))), {"limit"}),
    "NUL in uid": (lambda: (b"shop:u\0", _envelope(uid="u\0")), {"limit"}),
    "empty uid": (lambda: (b"shop:", _envelope(uid="")), {"limit"}),
    "unknown tenant": (lambda: (b"nobody:u1", _envelope(tenant="nobody")), {"unknown_tenant"}),
    "disabled tenant": (lambda: (b"closed:u1", _envelope(tenant="closed")), {"disabled_tenant"}),
    "key and body disagree": (lambda: (b"forum:u1", _envelope()), {"key_mismatch"}),
    "no key": (lambda: (None, _envelope()), {"key_mismatch"}),
    "33 KiB": (lambda: (KEY, _envelope(properties={"a": "x" * 33 * 1024})), {"too_large"}),
    "in 2100": (lambda: (KEY, _envelope(timestamp="2100-01-01T00:00:00Z")), {"timestamp"}),
    "without zone": (lambda: (KEY, _envelope(timestamp="2026-09-21T10:00:00")), {"timestamp"}),
    "string digits": (lambda: (KEY, _envelope(timestamp=str(now_ms()))), {"malformed"}),
    "tombstone": (lambda: (KEY, None), {"empty"}),
    "empty value": (lambda: (KEY, b""), {"empty"}),
}


def bad_records(first: int) -> Iterator[Record]:
    """Without end, one kind after the other."""
    for number in count(first):
        make, reasons = list(BAD.values())[number % len(BAD)]
        key, value = make()
        yield rejected(number, key, value, reasons)


def all_kinds(field: Field) -> None:
    """Every hostile input among good records, and a worker that dies in the middle of it."""
    bad = int(field.events * BAD_SHARE)
    good = list(islice(records(Mix(EVERYBODY, other_payload=0.01), now_ms()), field.events - bad))
    ancient = list(
        islice(
            records(Mix(EVERYBODY, expired=1.0, again=0.0, other_payload=0.0), DAY_MS * 365, first=len(good) + bad), 100
        )
    )
    field.start_workers(2)
    field.publish(mingled([*good, *ancient], islice(bad_records(len(good)), bad)))
    field.wait_until_busy()
    field.kill_worker()
    field.start_workers(1)
    field.fault(f"{len(BAD)} kinds of bad records, {BAD_SHARE:.0%} of all; worker SIGKILL")
    field.healed()


def nothing_but_bad(field: Field) -> None:
    """Only bad records: workers halt long before all are dead letters, until an operator lets the dead letters have them."""
    field.freshness.quiet()
    field.publisher.publish(islice(bad_records(0), field.events))
    halting = [field.start_worker() for _ in range(2)]
    for worker in halting:
        field.wait(lambda worker=worker: worker.poll() is not None, "a worker to halt")  # type: ignore[misc]
        assert worker.returncode == HALTED, f"a worker ended with {worker.returncode}, expected {HALTED}"
    letters = field.dead_letters()
    assert letters < field.events / 2, f"{letters} of {field.events} were drained into the dead letters"
    field.check_prefix()
    field.figures["letters_at_halt"] = letters
    field.start_workers(2, EVENTSTORE_WORKER__HALT_REJECT_SHARE="1")
    field.fault("100 % invalid topic")
    field.healed()
