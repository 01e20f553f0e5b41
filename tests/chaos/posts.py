"""Events as requests to a gateway, in every shape that it takes, and which answers to them may be. Pure."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import orjson

from tests.chaos.load import Record
from tests.chaos.oracle import Expected

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"


class Post(NamedTuple):
    """One request, sent byte for byte until it is answered with 200: the same events, with the same message ids."""

    tenant: str
    path: str
    content_type: str
    body: bytes
    expected: tuple[Expected, ...]


class Shape(NamedTuple):
    """One of the ways in."""

    path: str
    content_type: str
    most: int
    """Events that it takes from the load."""
    body: Callable[[Sequence[Record]], bytes]


def segment_call(record: Record) -> dict[str, Any]:
    """An event of our own envelope, as Segment's libraries send it."""
    fields: dict[str, Any] = orjson.loads(record.value or b"")
    named = {"type": "track", "userId": fields.pop("uid")}
    if "message_id" in fields:
        named["messageId"] = fields.pop("message_id")
    del fields["tenant"]
    return named | fields


SHAPES: Final = (
    Shape("/v1/track", JSON, 1, lambda records: orjson.dumps(segment_call(records[0]))),
    Shape("/v1/batch", JSON, 80, lambda records: orjson.dumps({"batch": [segment_call(each) for each in records]})),
    Shape("/v1/events", JSON, 1, lambda records: records[0].value or b""),
    Shape("/v1/events", JSON, 40, lambda records: b"[" + b",".join(each.value or b"" for each in records) + b"]"),
    Shape("/v1/events", NDJSON, 80, lambda records: b"\n".join(each.value or b"" for each in records)),
)


def posts(load: Iterator[Record], seed: int = 7) -> Iterator[Post]:
    """Requests of every shape without end, each of one tenant, for a key opens no other's door."""
    chance = random.Random(seed)

    def tenant_of(record: Record) -> str:
        return record.expected.tenant

    while True:
        shape = chance.choice(SHAPES)
        taken = sorted(itertools.islice(load, chance.randint(1, shape.most)), key=tenant_of)
        for tenant, found in itertools.groupby(taken, tenant_of):
            records = tuple(found)
            expected = tuple(record.expected for record in records)
            yield Post(tenant, shape.path, shape.content_type, shape.body(records), expected)


class Answer(NamedTuple):
    status: int
    retry_after: str | None
    body: bytes


def fault_of(post: Post, answer: Answer) -> str | None:
    """What is wrong with an answer. Nothing: a 200 that accepts every event, or a 503 that says when to come back."""
    if answer.status == 200:
        accepted = orjson.loads(answer.body)["accepted"]
        return None if accepted == len(post.expected) else f"200 for {accepted} of {len(post.expected)} events"
    if answer.status == 503:
        return None if (answer.retry_after or "").isdecimal() else f"503 with Retry-After {answer.retry_after!r}"
    return f"{answer.status} {answer.body[:200]!r}"
