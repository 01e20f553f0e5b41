"""Impressions over HTTP: how many requests a core takes, what others notice of them, and how quick 500 candidates are."""

import asyncio
import random
from collections.abc import Coroutine
from itertools import chain

import msgspec
import uvloop
from cassandra.concurrent import execute_concurrent
from cassandra.query import BoundStatement

from eventstore.clock import now_ms
from eventstore.config import load_settings
from eventstore.events.cells import FIRST_SEEN, LAST_SEEN, STATEMENTS, values
from eventstore.events.impressions import Impressions, Seen, encode_impression
from eventstore.ingest.impressions import rows_of
from eventstore.store.session import close, connect
from eventstore.store.statements import statement_in
from eventstore.tenancy import KeyUse
from tests.benchmarks import data, worker
from tests.benchmarks.arena import Target
from tests.benchmarks.bench import Bench
from tests.benchmarks.cases import per_core
from tests.benchmarks.http_read import WARM_AT_ONCE, WARM_SECONDS
from tests.benchmarks.requests import Client, Make, get, post
from tests.benchmarks.results import host_load, latency
from tests.benchmarks.sink import running_sink
from tests.benchmarks.watch import cpu_seconds
from tests.gateways import GatewayUnderTest, key, running_gateway, with_keys
from tests.waiting import until
from tests.world import World

USERS = 100
POSTS = 600
"""Seen by each, over 30 days."""
CANDIDATES = 500
QUESTIONS_A_SECOND = 20
POSTED = 15
"""Posts of a request."""
PEAK = 520
"""Requests a second, that of the system this was made for."""
EVENTS_A_SECOND = 50
AT_ONCE = 32
BATCHED = 100
"""Events of a batch."""
BATCHES = 100
"""Different ones, made beforehand."""
BATCHES_AT_ONCE = 4
DAY_MS = 86_400_000


def impressions(bench: Bench) -> None:
    """Impressions: requests a core, events' latency beside them, 500 candidates, and what a post costs a worker."""
    topic = bench.arena.topic()
    with bench.arena.keyspace(["shop"], **with_keys("shop")) as target:
        _write(target)
        environment = bench.arena.environment(topic, target, "gateway")
        world = World(bench.arena.folder, load_settings(registry=target.registry_path), environment)
        with running_gateway(world) as gateway:
            ask = "/v1/tenants/shop/users/u0/seen?posts=p1"
            until(lambda: gateway.ask("GET", ask, key=key("shop", KeyUse.READ)).status == 200, "the cluster")
            _candidates(bench, gateway)
            _taken(bench, gateway)
            _beside(bench, gateway)
    _stored(bench)


def _candidates(bench: Bench, gateway: GatewayUnderTest) -> None:
    dice = random.Random(7)
    requests = [_question(user, dice.sample(range(2 * POSTS), CANDIDATES)) for user in range(USERS)]

    async def warmed() -> None:
        async with Client(gateway.port) as client:
            await client.pressed(lambda number: requests[number % USERS], WARM_AT_ONCE, WARM_SECONDS)

    async def asked(seconds: float) -> list[float]:
        async with Client(gateway.port) as client:
            return await client.paced(lambda number: requests[number % USERS], QUESTIONS_A_SECOND, seconds)

    uvloop.run(warmed())
    before = cpu_seconds(gateway.process.pid)
    seconds = uvloop.run(asked(bench.scale.seconds))
    cpu = (cpu_seconds(gateway.process.pid) - before) / len(seconds) * 1e6
    bench.record("impressions", f"{CANDIDATES} candidates, {QUESTIONS_A_SECOND}/s",
                 latency("read", seconds) | {"cpu_us": round(cpu), "events": len(seconds)})  # fmt: skip


def _taken(bench: Bench, gateway: GatewayUnderTest) -> None:
    """As fast as they are answered. The client shares the cores: what counts is events a second of the gateway's CPU."""

    async def pressed(make: Make, at_once: int, seconds: float) -> int:
        async with Client(gateway.port) as client:
            return await client.pressed(make, at_once, seconds)

    batches = [_batch(number) for number in range(BATCHES)]
    uvloop.run(pressed(_shown, AT_ONCE, 1.0))
    for name, make, events, at_once in (
        ("an event a request", _event, 1, AT_ONCE),
        (f"{BATCHED} events a request", lambda number: batches[number % BATCHES], BATCHED, BATCHES_AT_ONCE),
        (f"{POSTED} posts a request", _shown, 1, AT_ONCE),
    ):
        before = cpu_seconds(gateway.process.pid)
        answered = uvloop.run(pressed(make, at_once, bench.scale.seconds)) * events
        cpu_us = (cpu_seconds(gateway.process.pid) - before) / answered * 1e6
        bench.record("impressions", name, {
            "events": answered, "per_second": round(answered / bench.scale.seconds), "cpu_us": round(cpu_us, 1),
            "per_core": per_core(cpu_us), "host_load": host_load(),
        })  # fmt: skip


def _beside(bench: Bench, gateway: GatewayUnderTest) -> None:
    """Events' own latency without impressions beside them, and with, in turns."""

    async def events(beside: float, seconds: float) -> tuple[list[float], list[float]]:
        async with Client(gateway.port) as client, Client(gateway.port) as other:
            both: list[Coroutine[None, None, list[float]]] = [
                client.paced(_event, EVENTS_A_SECOND, seconds), other.paced(_shown, beside, seconds),
            ]  # fmt: skip
            found, shown = await asyncio.gather(*both)
            return found, shown

    for _ in range(bench.scale.rounds):
        for beside in (0, PEAK):
            seconds, shown = uvloop.run(events(beside, bench.scale.seconds))
            bench.record("impressions", f"an event beside {beside}/s", latency("write", seconds))
            if shown:
                bench.record("impressions", f"impressions, {beside}/s", latency("write", shown))


def _stored(bench: Bench) -> None:
    """A worker and a store that only counts."""
    load = bench.arena.load(data.impressions(bench.scale.part(0.1), bench.now_ms, POSTED))
    with running_sink() as (cluster, _):
        found = worker.ingest(bench.arena, load, bench.arena.target(cluster, load.data.tenants))
    bench.record("impressions", f"a worker, {POSTED} posts a record", found.figures)


def _question(user: int, posts: list[int]) -> bytes:
    return get(
        f"/v1/tenants/shop/users/u{user}/seen?posts=" + ",".join(f"post-{post:06}" for post in posts),
        key("shop", KeyUse.READ),
    )


def _shown(number: int) -> bytes:
    posts = [f"post-{number * POSTED + place:012}" for place in range(POSTED)]
    body = msgspec.json.encode({"uid": f"u{number % 5_000}", "posts": posts})
    return post("/v1/impressions", key("shop", KeyUse.WRITE), body)


def _event(number: int) -> bytes:
    return post("/v1/track", key("shop", KeyUse.WRITE), msgspec.json.encode(_call(number)))


def _batch(number: int) -> bytes:
    calls = [{"type": "track"} | _call(number * BATCHED + place) for place in range(BATCHED)]
    return post("/v1/batch", key("shop", KeyUse.WRITE), msgspec.json.encode({"batch": calls}))


def _call(number: int) -> dict[str, object]:
    return {"userId": f"u{number}", "event": "viewed", "messageId": f"m-{number}", "properties": {"page": "x" * 400}}


def _write(target: Target) -> None:
    """By the statements that workers use."""
    tier, now = target.registry.tiers["t30"], now_ms()
    posts = [Seen(f"post-{n:06}", (now - n * 30 * DAY_MS // POSTS) * 1_000) for n in range(POSTS)]
    session = connect(tier.cluster, request_timeout=30.0)
    try:
        prepared = {
            head: session.prepare(statement_in(tier.cluster.keyspace, STATEMENTS[head]))
            for head in (FIRST_SEEN, LAST_SEEN)
        }
        bound = []
        for user in range(USERS):
            record = Impressions(tenant="shop", uid=f"u{user}", posts=[])
            for cells in chain.from_iterable(map(encode_impression, rows_of(record, posts, tier, now * 1_000))):
                made = BoundStatement(prepared[cells[:2]])
                made.values = values(cells)
                bound.append((made, ()))
        execute_concurrent(session, bound, concurrency=64)
    finally:
        close(session)
