"""The events that benchmarks ingest. The same arguments give the same events, so a run can be checked row by row."""

import gzip
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from importlib.resources import files
from uuid import UUID

import orjson

from eventstore.demo.scene import EDITS

SPAN_MS = 10 * 86_400_000
"""Event times lie in the ten days before a run."""
USERS = 10_000


@dataclass(frozen=True, slots=True)
class Event:
    tenant: str
    uid: str
    value: bytes

    @property
    def key(self) -> bytes:
        return f"{self.tenant}:{self.uid}".encode()


@dataclass(frozen=True, slots=True)
class Dataset:
    name: str
    count: int
    now_ms: int
    make: Callable[["Dataset"], Iterator[Event]]
    tenants: tuple[str, ...]

    def __iter__(self) -> Iterator[Event]:
        return self.make(self)

    def time_ms(self, number: int) -> int:
        """Evenly over the span, the oldest first."""
        return self.now_ms - SPAN_MS + number * SPAN_MS // self.count


def wikipedia(count: int, now_ms: int) -> Dataset:
    """Real edits of 51 Wikipedias, about 560 bytes each, repeated with new ids and times until there are enough."""
    tenants = tuple(sorted({_tenant(edit) for edit in _edits()}))
    return Dataset(f"wikipedia-{count}", count, now_ms, _wikipedia, tenants)


def sized(count: int, now_ms: int, size: int) -> Dataset:
    """Events of about `size` bytes, of ten tenants with a thousand users each."""
    return Dataset(f"size-{size}", count, now_ms, lambda self: _synthetic(self, size, USERS), _numbered(10))


def many_tenants(count: int, now_ms: int, tenants: int) -> Dataset:
    """Events of 560 bytes, of ten thousand users spread evenly over so many tenants."""
    return Dataset(f"tenants-{tenants}", count, now_ms, lambda self: _synthetic(self, 560, USERS), _numbered(tenants))


def hot_user(count: int, now_ms: int) -> Dataset:
    """All events are one user's: one Kafka partition and, while a bucket lasts, one CQL partition."""
    return Dataset("hot-user", count, now_ms, lambda self: _synthetic(self, 560, 1), _numbered(1))


def impressions(count: int, now_ms: int, posts: int) -> Dataset:
    """Records of so many posts seen by each of ten thousand users, once and again."""
    return Dataset(f"impressions-{posts}", count, now_ms, lambda self: _impressions(self, posts), _numbered(10))


def event_uuid(*parts: object) -> str:
    return str(UUID(bytes=blake2b(repr(parts).encode(), digest_size=16).digest()))


def _edits() -> list[dict[str, object]]:
    with gzip.open(str(files("eventstore.demo") / "data" / EDITS)) as lines:
        return [orjson.loads(line) for line in lines]


def _tenant(edit: dict[str, object]) -> str:
    return str(edit["channel"]).removeprefix("#")


def _wikipedia(data: Dataset) -> Iterator[Event]:
    edits = []
    for edit in _edits():
        kept = {name: value for name, value in edit.items() if name not in ("channel", "user", "time")}
        edits.append((_tenant(edit), str(edit["user"]), orjson.Fragment(orjson.dumps(kept))))
    for number, (tenant, uid, properties) in enumerate(itertools.islice(itertools.cycle(edits), data.count)):
        yield _event(data, number, (tenant, uid), "page_edited", properties)


def _synthetic(data: Dataset, size: int, users: int) -> Iterator[Event]:
    chance = random.Random(size)
    empty = len(_event(data, 0, (data.tenants[0], "u0"), "page_viewed", {"text": ""}).value)
    padding = max(1, size - empty)
    for number in range(data.count):
        user = chance.randrange(users) if users > 1 else 0
        tenant, uid = data.tenants[user % len(data.tenants)], f"u{user}"
        text = chance.randbytes(padding // 2 + 1).hex()[:padding]  # compresses about as badly as ids and hashes do
        yield _event(data, number, (tenant, uid), "page_viewed", {"text": text})


def _impressions(data: Dataset, posts: int) -> Iterator[Event]:
    chance = random.Random(posts)
    for number in range(data.count):
        user = chance.randrange(USERS)
        tenant, uid = data.tenants[user % len(data.tenants)], f"u{user}"
        shown = [f"post-{chance.randrange(100_000):012}" for _ in range(posts)]
        record = {"tenant": tenant, "uid": uid, "at": data.time_ms(number), "posts": shown}
        yield Event(tenant, uid, orjson.dumps(record))


def _event(data: Dataset, number: int, sender: tuple[str, str], event: str, properties: object) -> Event:
    tenant, uid = sender
    seconds, millis = divmod(data.time_ms(number), 1_000)
    value = orjson.dumps(
        {
            "tenant": tenant, "uid": uid, "event": event, "message_id": event_uuid(data.name, number),
            "timestamp": f"{_second(seconds)}.{millis:03}Z", "properties": properties,
        }
    )  # fmt: skip
    return Event(tenant, uid, value)


def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"t{number}" for number in range(count))
