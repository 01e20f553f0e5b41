"""Events as real producers publish them, each with what must become of it, and a note of what Kafka acknowledged."""

import hashlib
import itertools
import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson
from confluent_kafka import Producer

from tests.chaos.oracle import Expected, Fate, Place

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
EVENT_NAMES: Final = ("product_viewed", "added_to_cart", "signed_in", "searched")
STEP_SECONDS: Final = 0.02
TRICKLE: Final = 0.05
"""Of the rate, for as long as faults take: there must always be something to break."""
DELIVERY_SECONDS: Final = 180
"""A producer that waits out a broker's absence, as real ones are told to."""


class Record(NamedTuple):
    key: bytes | None
    value: bytes | None
    expected: Expected


@dataclass(frozen=True, slots=True)
class Mix:
    """Who sends what; shares are of all records."""

    tenants: tuple[tuple[str, float], ...]
    """Names and weights."""
    users: int = 400
    """Of each tenant."""
    hot_share: float = 0.0
    """Of a tenant's events that one single user sends."""
    late: float = 0.1
    """Hours to days old: written with the rest of their retention."""
    expired: float = 0.01
    again: float = 0.02
    """Records sent a second time, as a producer does that did not hear the acknowledgement."""
    other_payload: float = 0.003
    """The same message id and time with other properties."""
    padding: int = 120
    """Bytes."""


def records(mix: Mix, now_ms: int, first: int = 0, seed: int = 7) -> Iterator[Record]:
    """Good and expired records without end, numbered from `first`."""
    chance = random.Random(seed + first)
    names, weights = [name for name, _ in mix.tenants], [weight for _, weight in mix.tenants]
    recent: list[Record] = []
    for number in itertools.count(first):
        roll = chance.random()
        if recent and roll < mix.again + mix.other_payload:
            earlier = chance.choice(recent)
            yield _again(earlier, number) if roll < mix.again else _other_payload(earlier, number)
            continue
        record = _fresh(number, chance.choices(names, weights)[0], mix, now_ms, chance)
        yield record
        # only what has a message id is the same event when it is sent twice
        if record.expected.fate is Fate.STORED and b'"message_id"' in (record.value or b""):
            recent = [*recent[-500:], record]


def _fresh(number: int, tenant: str, mix: Mix, now_ms: int, chance: random.Random) -> Record:
    uid = "hot" if chance.random() < mix.hot_share else f"u{chance.randrange(mix.users)}"
    ts_ms, fate = _moment(mix, now_ms, chance)
    body: dict[str, Any] = {
        "tenant": tenant, "uid": uid, "event": chance.choice(EVENT_NAMES),
        "timestamp": ts_ms if chance.random() < 0.5 else _rfc3339(ts_ms),
        "properties": {"n": number, "price": chance.randrange(10_000) / 100, "note": "ü" * chance.randrange(3)},
        "context": {"ip": "127.0.0.1", "pad": "x" * chance.randrange(2 * mix.padding)},
    }  # fmt: skip
    roll = chance.random()
    if roll < 0.7:
        body["message_id"] = str(UUID(int=chance.getrandbits(128)))
    elif roll < 0.9:
        body["message_id"] = f"message-{number}"
    return _record(number, number, fate, body, ts_ms)


def _moment(mix: Mix, now_ms: int, chance: random.Random) -> tuple[int, Fate]:
    roll = chance.random()
    if roll < mix.expired:
        return now_ms - chance.randrange(100 * DAY_MS, 200 * DAY_MS), Fate.EXPIRED
    if roll < mix.expired + mix.late:
        return now_ms - chance.randrange(2 * HOUR_MS, 10 * DAY_MS), Fate.STORED
    return now_ms - chance.randrange(HOUR_MS // 2), Fate.STORED


def _again(earlier: Record, number: int) -> Record:
    """Byte for byte; the row's number is then the first one's."""
    return earlier._replace(expected=earlier.expected._replace(number=number))


def _other_payload(earlier: Record, number: int) -> Record:
    body = orjson.loads(earlier.value or b"")
    body["properties"]["n"] = number
    return _record(number, earlier.expected.identity, Fate.STORED, body, earlier.expected.ts_ms)


def _record(number: int, identity: int, fate: Fate, body: dict[str, Any], ts_ms: int) -> Record:
    digest = digest_of(body["event"], orjson.dumps(body["properties"]), orjson.dumps(body["context"]))
    expected = Expected(number, identity, fate, body["tenant"], body["uid"], ts_ms, digest)
    return Record(f"{body['tenant']}:{body['uid']}".encode(), orjson.dumps(body), expected)


def rejected(number: int, key: bytes | None, value: bytes | None, reasons: Iterable[str]) -> Record:
    """A record that breaks a rule."""
    expected = Expected(number, number, Fate.REJECTED, "", "", 0, digest_of_raw(key, value), frozenset(reasons))
    return Record(key, value, expected)


def mingled(first: Sequence[Record], second: Iterable[Record], seed: int = 7) -> list[Record]:
    """Both, the second at random places among the first."""
    chance = random.Random(seed)
    placed = [(index, record) for index, record in enumerate(first)]
    placed += [(chance.randrange(len(first) + 1), record) for record in second]
    return [record for _, record in sorted(placed, key=lambda pair: pair[0])]


def digest_of(event: str, properties: bytes, context: bytes) -> bytes:
    return hashlib.blake2b(b"\0".join((event.encode(), properties, context)), digest_size=8).digest()


def digest_of_raw(key: bytes | None, value: bytes | None) -> bytes:
    return hashlib.blake2b(repr((key, value)).encode(), digest_size=8).digest()


def _rfc3339(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def due(seconds: float, count: int, rate: float) -> float:
    """How many events should be out by then: `count` at this rate a second, and from there on a trickle."""
    return min(seconds * rate, count + max(0.0, seconds - count / rate) * rate * TRICKLE)


@dataclass(slots=True)
class Publisher:
    """Publishes at a rate and notes what was handed over and what was acknowledged, and where."""

    bootstrap_servers: str
    topic: str
    plan: dict[int, Expected] = field(default_factory=dict)
    acknowledged: dict[Place, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    _thread: threading.Thread | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _producer: Producer = field(init=False)

    def __post_init__(self) -> None:
        self._producer = Producer({
            "bootstrap.servers": self.bootstrap_servers, "enable.idempotence": True, "acks": "all", "linger.ms": 5,
            "delivery.timeout.ms": DELIVERY_SECONDS * 1_000, "partitioner": "murmur2_random", "log_level": 2,
            "compression.type": "lz4",
        })  # fmt: skip

    def start(self, load: Iterable[Record], count: int, rate: float) -> None:
        """Publish in the background: so many records at this rate a second, and then a trickle until `finish`."""
        self._thread = threading.Thread(target=self._run, args=(iter(load), count, rate), name="publisher", daemon=True)
        self._thread.start()

    def is_publishing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def finish(self, at_least: int) -> None:
        """Stop once so many are handed over, and wait until all are answered."""
        while self.is_publishing() and len(self.plan) < at_least:
            time.sleep(STEP_SECONDS)
        self.end()
        self.flush()

    def end(self) -> None:
        """However it stands."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def publish(self, load: Iterable[Record]) -> None:
        """As fast as Kafka takes them; returns when all are answered."""
        for record in load:
            self.send(record)
        self.flush()

    def flush(self) -> None:
        waiting = self._producer.flush(DELIVERY_SECONDS + 10)
        assert waiting == 0, f"{waiting} records were never answered"

    def _run(self, load: Iterator[Record], count: int, rate: float) -> None:
        begun, sent = time.monotonic(), 0
        while not self._stop.is_set():
            wanted = int(due(time.monotonic() - begun, count, rate))
            for record in itertools.islice(load, max(0, wanted - sent)):
                self.send(record)
                sent += 1
            self.poll()
            time.sleep(STEP_SECONDS)

    def poll(self) -> None:
        """Hear of acknowledgements."""
        self._producer.poll(0)

    def send(self, record: Record) -> None:
        """Hand one record over."""
        self.plan[record.expected.number] = record.expected
        note = partial(self._answered, record.expected.number)
        while True:
            try:
                self._producer.produce(self.topic, record.value, record.key, on_delivery=note)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def _answered(self, number: int, error: Any, message: Any) -> None:
        if error is None:
            self.acknowledged[Place(message.topic(), message.partition(), message.offset())] = number
        else:
            self.failed.append(str(error))
