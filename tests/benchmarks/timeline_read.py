"""How quick a timeline is, and what a row costs: `python -m tests.benchmarks.timeline_read REGISTRY`.

Writes users of 100 events over 30 days, and one user with a single huge bucket, into a keyspace of its own on the cluster
of tier `t30`; drops it at the end. Latencies are wall-clock and mostly the server's; CPU is this process alone.
"""

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from statistics import quantiles
from uuid import uuid4

import uvloop
from cassandra.cluster import Session
from cassandra.concurrent import execute_concurrent_with_args

from eventstore.cli.console import out
from eventstore.clock import now_ms
from eventstore.config import Settings
from eventstore.registry import load_registry
from eventstore.store.schema import apply_schema
from eventstore.store.session import close, connect
from eventstore.tenancy import Registry, Tenant, Tier
from eventstore.timeline import Timeline, TimelineQuery
from eventstore.timeline.connect import open_timeline

USERS = 200
EVENTS = 100
HUGE = 100_000
REQUESTS = 2_000
DAY_MS = 86_400_000
PROPERTIES = '{"page": "%s"}' % ("x" * 480)

INSERT = (
    "INSERT INTO events (uid, tenant, bid, ts, eid, event, properties, context) VALUES (?, 'shop', ?, ?, ?, ?, ?, '{}')"
)


def main() -> None:
    t30 = load_registry(Path(sys.argv[1])).tiers["t30"]
    tier = replace(t30, cluster=replace(t30.cluster, keyspace=f"bench_{uuid4().hex[:12]}"))
    session = connect(tier.cluster, request_timeout=30.0)
    try:
        apply_schema(session, tier)
        write(session, tier)
        uvloop.run(measure(tier))
    finally:
        session.execute(f"DROP KEYSPACE IF EXISTS {tier.cluster.keyspace}", timeout=60.0)
        close(session)


def write(session: Session, tier: Tier) -> None:
    now = now_ms()
    rows = [(f"u{user}", now - n * 30 * DAY_MS // EVENTS, "viewed") for user in range(USERS) for n in range(EVENTS)]
    # the newest bucket may have begun just now: the huge user's events lie in the one before
    start = tier.buckets.between(now - 11 * DAY_MS, now)[0].start_ms
    start = max(start, now - 20 * DAY_MS)
    rows += [("huge", start + n, "bought" if n == 1 else "viewed") for n in range(HUGE)]
    prepared = session.prepare(INSERT)
    cells = [(uid, tier.buckets.bid(ts), ts, uuid4(), event, PROPERTIES) for uid, ts, event in rows]
    execute_concurrent_with_args(session, prepared, cells, concurrency=64)


async def measure(tier: Tier) -> None:
    registry = Registry({tier.cluster.name: tier.cluster}, {tier.name: tier}, {"shop": Tenant("shop", tier)})
    settings = Settings(reader={"request_timeout": 20.0})
    async with open_timeline(settings, lambda: registry) as timeline:
        await pages(timeline, REQUESTS // 10)  # warm
        report("100 events over 30 days, one after the other", *await pages(timeline, REQUESTS), rows=EVENTS)
        report("  the same, 8 at a time", *await pages(timeline, REQUESTS, at_once=8), rows=EVENTS)
        report("newest 10 of 100,000", *await timed(lambda: newest(timeline, 10), 500), rows=10)
        report("count of 100,000", *await timed(lambda: timeline.count(TimelineQuery("shop", "huge")), 10), rows=HUGE)
        rare = TimelineQuery("shop", "huge", event="bought")
        report("1 match in 100,000, filtered by the server", *await timed(lambda: timeline.latest(rare), 10), rows=HUGE)
        report("1 match in 100,000, filtered by the client", *await timed(lambda: by_client(timeline), 3), rows=HUGE)


async def pages(timeline: Timeline, requests: int, at_once: int = 1) -> tuple[list[float], float]:
    gate = asyncio.Semaphore(at_once)
    users = random.choices(range(USERS), k=requests)

    async def one(user: int) -> float:
        async with gate:
            start = time.perf_counter()
            page = await timeline.page(TimelineQuery("shop", f"u{user}"), limit=EVENTS)
            assert len(page.events) == EVENTS, len(page.events)
            return time.perf_counter() - start

    cpu = time.process_time()
    seconds = await asyncio.gather(*map(one, users))
    return seconds, (time.process_time() - cpu) / requests


async def newest(timeline: Timeline, limit: int) -> None:
    await timeline.page(TimelineQuery("shop", "huge"), limit=limit)


async def by_client(timeline: Timeline) -> None:
    found = [event async for event in timeline.iterate(TimelineQuery("shop", "huge")) if event.event == "bought"]
    assert len(found) == 1


async def timed(call: Callable[[], Awaitable[object]], times: int) -> tuple[list[float], float]:
    seconds = []
    cpu = time.process_time()
    for _ in range(times):
        start = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - start)
    return seconds, (time.process_time() - cpu) / times


def report(what: str, seconds: list[float], cpu: float, rows: int) -> None:
    cuts = quantiles(seconds, n=100, method="inclusive")
    out.print(
        f"{what:44} p50 {cuts[49] * 1e3:8.2f} ms  p99 {cuts[98] * 1e3:8.2f} ms"
        f"  {cpu * 1e6:9.0f} us CPU a call  {cpu / rows * 1e6:7.1f} a row",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
