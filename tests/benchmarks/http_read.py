"""How quick reads are over HTTP, at a steady rate: requests set out on time whether or not others have come back."""

from dataclasses import dataclass
from uuid import uuid4

import uvloop
from cassandra.concurrent import execute_concurrent_with_args

from eventstore.clock import now_ms
from eventstore.config import load_settings
from eventstore.store.session import close, connect
from eventstore.tenancy import KeyUse
from tests.benchmarks.arena import Target
from tests.benchmarks.bench import Bench
from tests.benchmarks.requests import Client, get
from tests.benchmarks.results import latency
from tests.benchmarks.timeline_read import DAY_MS, EVENTS, INSERT, PROPERTIES, USERS
from tests.benchmarks.watch import cpu_seconds
from tests.gateways import key, running_gateway, with_keys
from tests.waiting import until
from tests.world import World

RATE = 200
"""Requests a second."""
WARM_SECONDS = 10.0
WARM_AT_ONCE = 16

NAMES = ("product_viewed", "added_to_cart", "signed_up")
INSERT_LATEST = "INSERT INTO latest (tenant, uid, event, item) VALUES ('shop', ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Question:
    path: str
    """Below the user's own."""
    events: int
    """Of its answer."""

    def request(self, number: int) -> bytes:
        """About one user after the other."""
        return get(f"/v1/tenants/shop/users/u{number % USERS}/{self.path}", key("shop", KeyUse.READ))


QUESTIONS = {
    f"{EVENTS} events": Question(f"events?last=30d&limit={EVENTS}", EVENTS),
    f"newest of {len(NAMES)} names": Question("latest", len(NAMES)),
}


def http_read(bench: Bench) -> None:
    """A gateway and its cluster: timelines of 100 events over 30 days, and newest events of 3 names; 200 requests/s."""
    with bench.arena.keyspace(["shop"], **with_keys("shop", latest=list(NAMES))) as target:
        _write(target)
        environment = bench.arena.environment("events", target, "read")
        world = World(bench.arena.folder, load_settings(registry=target.registry_path), environment)
        with running_gateway(world, "--only", "read") as gateway:
            pid = gateway.process.pid
            count = "/v1/tenants/shop/users/u0/count"
            until(lambda: gateway.ask("GET", count, key=key("shop", KeyUse.READ)).status == 200, "the cluster")
            for name, question in QUESTIONS.items():
                uvloop.run(_warm(gateway.port, question))
                before = cpu_seconds(pid)
                seconds = uvloop.run(_paced(gateway.port, question, bench.scale.seconds))
                cpu = cpu_seconds(pid) - before
                bench.record("http_read", f"{name}, {RATE}/s", latency("read", seconds) | {
                    "cpu_us": cpu / len(seconds) / question.events * 1e6, "events": len(seconds) * question.events,
                })  # fmt: skip


def _write(target: Target) -> None:
    """Users of 100 events, spread over 30 days, and the newest of three names at hand."""
    tier = target.registry.tiers["t30"]
    now = now_ms()
    rows = [(f"u{user}", now - n * 30 * DAY_MS // EVENTS) for user in range(USERS) for n in range(EVENTS)]
    session = connect(tier.cluster, request_timeout=30.0)
    try:
        cells = [(uid, tier.buckets.bid(ts), ts, uuid4(), "viewed", PROPERTIES) for uid, ts in rows]
        execute_concurrent_with_args(session, session.prepare(INSERT), cells, concurrency=64)
        latest = [(f"u{user}", name, (now, uuid4(), name, PROPERTIES, "{}")) for user in range(USERS) for name in NAMES]
        execute_concurrent_with_args(session, session.prepare(INSERT_LATEST), latest, concurrency=64)
    finally:
        close(session)


async def _warm(port: int, question: Question) -> None:
    """Have the store's JVM compile what reads run: as many as it takes, which are thousands, and more than in the measured time."""
    async with Client(port) as client:
        await client.pressed(question.request, WARM_AT_ONCE, WARM_SECONDS)


async def _paced(port: int, question: Question, seconds: float) -> list[float]:
    """Seconds of each request, from when it was due until its answer was there."""
    async with Client(port) as client:
        body = await client.ask(question.request(0))
        assert body.count(b'"eid"') >= question.events - 1, body[:200]  # the oldest may have left the range meanwhile
        return await client.paced(question.request, RATE, seconds)
