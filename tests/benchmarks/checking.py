"""What a JSON Schema costs an event: the same chunk through the rules with and without one, by turns in one process.

Two runs of a whole worker differ by more than the check costs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import orjson
from confluent_kafka import Message

from eventstore.demo import scene
from eventstore.events import CompiledSchema, compile_schema
from eventstore.events.schema import rust_schema
from eventstore.ingest.admission import ClockRules
from eventstore.ingest.express import Express
from eventstore.stream.chunk import Chunk, Member
from eventstore.tenancy import Tenant
from tests.benchmarks import data
from tests.benchmarks.bench import Bench
from tests.benchmarks.results import host_load
from tests.builders import registry, tier

SCHEMA: Final = Path(scene.__file__).parent / "data" / "page_edited.json"
CHUNK: Final = 1_000
TURNS: Final = 60


def checked(bench: Bench) -> None:
    """What a JSON Schema costs an event: with and without it by turns, and the check alone."""
    document = orjson.loads(SCHEMA.read_bytes())
    schema, full = compile_schema(document), rust_schema(document)
    load = data.wikipedia(CHUNK, bench.now_ms)
    events = list(islice(load, CHUNK))
    properties = [orjson.dumps(orjson.loads(event.value)["properties"]) for event in events]
    messages = [
        Message(topic="events", partition=0, offset=offset, key=event.key, value=event.value, timestamp=(1, bench.now_ms))
        for offset, event in enumerate(events)
    ]  # fmt: skip
    ways = {
        "unchecked": _sorting(messages, load.tenants, {}, bench.now_ms),
        "checked": _sorting(messages, load.tenants, {"page_edited": schema}, bench.now_ms),
        "type": lambda: _check(schema, properties),
        "full": lambda: _check(full, properties),
    }
    for _ in range(bench.scale.rounds):
        us = _least(ways)
        figures = {"more_us": us["checked"] - us["unchecked"], "check_us": us["type"], "full_us": us["full"]}
        bench.record("schema", "checked", figures | {"host_load": host_load()})


def _sorting(
    messages: Sequence[Message], tenants: Sequence[str], schemas: Mapping[str, CompiledSchema], now_ms: int
) -> Callable[[], None]:
    express, home = Express(ClockRules()), tier()
    of = registry(*(Tenant(name, home, schemas=schemas) for name in tenants))

    def sort() -> None:
        found = express.sort(Chunk("events", 0, list(messages), 0, Member()), of, now_ms * 1_000)
        assert not found.rejects

    return sort


def _check(schema: CompiledSchema, properties: Sequence[bytes]) -> None:
    for each in properties:
        assert schema.check(each) is None


def _least(ways: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    """Microseconds of CPU an event: the best of many turns, which on a busy machine is the one that nobody disturbed."""
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(TURNS):
        for name, way in ways.items():
            start = time.thread_time_ns()
            way()
            least[name] = min(least[name], (time.thread_time_ns() - start) / CHUNK / 1_000)
    return {name: round(us, 3) for name, us in least.items()}
