"""How quick a timeline is over HTTP, at a steady rate: requests set out on time whether or not others have come back."""

import asyncio
import time
from collections import deque
from statistics import quantiles
from uuid import uuid4

import uvloop
import yaml
from cassandra.concurrent import execute_concurrent_with_args

from eventstore.clock import now_ms
from eventstore.config import load_settings
from eventstore.store.session import close, connect
from eventstore.tenancy import KeyUse
from tests.benchmarks.arena import Target
from tests.benchmarks.bench import Bench
from tests.benchmarks.results import host_load
from tests.benchmarks.timeline_read import DAY_MS, EVENTS, INSERT, PROPERTIES, USERS
from tests.benchmarks.watch import cpu_seconds
from tests.gateways import key, running_gateway, with_keys
from tests.waiting import until
from tests.world import World

RATE = 200
"""Requests a second."""
WARM_SECONDS = 3.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def http_read(bench: Bench) -> None:
    """A gateway and its cluster: timelines of 100 events over 30 days, 200 requests/s."""
    with bench.arena.keyspace(["shop"]) as target:
        document = yaml.safe_load(target.registry_path.read_text("utf-8"))
        document["tenants"]["shop"] = with_keys("shop", tier="t30")
        target.registry_path.write_text(yaml.safe_dump(document), "utf-8")
        _write(target)
        environment = bench.arena.environment("events", target, "read")
        world = World(bench.arena.folder, load_settings(registry=target.registry_path), environment)
        with running_gateway(world, "--only", "read") as gateway:
            pid = gateway.process.pid
            count = "/v1/tenants/shop/users/u0/count"
            until(lambda: gateway.ask("GET", count, key=key("shop", KeyUse.READ)).status == 200, "the cluster")
            uvloop.run(_paced(gateway.port, WARM_SECONDS))
            before = cpu_seconds(pid)
            seconds = uvloop.run(_paced(gateway.port, bench.scale.seconds))
            cpu = cpu_seconds(pid) - before
    cuts = quantiles(seconds, n=100, method="inclusive")
    bench.record("http_read", f"{EVENTS} events, {RATE}/s", {
        "read_p50_ms": cuts[49] * 1e3, "read_p99_ms": cuts[98] * 1e3, "cpu_us": cpu / len(seconds) / EVENTS * 1e6,
        "events": len(seconds) * EVENTS, "host_load": host_load(),
    })  # fmt: skip


def _write(target: Target) -> None:
    """Users of 100 events, spread over 30 days."""
    tier = target.registry.tiers["t30"]
    now = now_ms()
    rows = [(f"u{user}", now - n * 30 * DAY_MS // EVENTS) for user in range(USERS) for n in range(EVENTS)]
    session = connect(tier.cluster, request_timeout=30.0)
    try:
        cells = [(uid, tier.buckets.bid(ts), ts, uuid4(), "viewed", PROPERTIES) for uid, ts in rows]
        execute_concurrent_with_args(session, session.prepare(INSERT), cells, concurrency=64)
    finally:
        close(session)


async def _paced(port: int, seconds: float) -> list[float]:
    """Seconds of each request, from when it was due until its answer was there."""
    idle: deque[Connection] = deque()
    start = time.perf_counter()
    asking = []
    for number in range(int(RATE * seconds)):
        due = start + number / RATE
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        asking.append(asyncio.create_task(_ask(port, idle, number % USERS, due)))
    took = await asyncio.gather(*asking)
    for _, writer in idle:
        writer.close()
    return took


async def _ask(port: int, idle: deque[Connection], user: int, due: float) -> float:
    reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET /v1/tenants/shop/users/u{user}/events?last=30d&limit={EVENTS} HTTP/1.1\r\nhost: gateway\r\n"
        f"authorization: Bearer {key('shop', KeyUse.READ)}\r\n\r\n".encode()
    )
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 200"), head
    body = await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    took = time.perf_counter() - due
    assert body.count(b'"eid"') >= EVENTS - 1, body[:200]  # the oldest may have left the range meanwhile
    idle.append((reader, writer))
    return took
