"""Live feeds: from published to received, for many watchers at a time, with and without others' events in the same partitions."""

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import Final

import orjson
import uvloop

from eventstore.config import ProducerSettings, load_settings
from eventstore.stream.producer import RecordProducer
from eventstore.tenancy import KeyUse
from tests.benchmarks.bench import Bench
from tests.benchmarks.requests import Connection, get
from tests.benchmarks.results import latency
from tests.benchmarks.watch import cpu_seconds
from tests.gateways import key, running_gateway, with_keys
from tests.waiting import until
from tests.world import World
from workers.process import settle_garbage

WATCHERS: Final = 500
"""Each of another user."""
WATCHED_A_SECOND: Final = 500
"""Events of users who are watched."""
OTHERS_A_SECOND: Final = (0, 4_500)
"""Events of users whom nobody watches."""
TICK_SECONDS: Final = 0.002
LATE_SECONDS: Final = 30.0
COMING: Final = 25
"""Watchers who come at the same moment."""
PADDING: Final = "x" * 400
AT: Final = re.compile(rb'"at_ns":(\d+)')


@dataclass(slots=True)
class Audience:
    """Watchers, and how long each event was on its way to its own."""

    port: int
    seconds: list[float] = field(default_factory=list)
    _expected: int | None = None
    """How many events there are to hear, once that is known."""
    _all_heard: asyncio.Event = field(default_factory=asyncio.Event)
    _listening: list["asyncio.Task[None]"] = field(default_factory=list)

    async def gather(self) -> None:
        """Returns once all feeds have begun."""
        for first in range(0, WATCHERS, COMING):
            feeds = await asyncio.gather(*(self._feed(user) for user in range(first, min(first + COMING, WATCHERS))))
            self._listening += [asyncio.create_task(self._listen(*feed)) for feed in feeds]

    async def heard(self, events: int) -> None:
        """Returns once so many events have been received.

        Raises:
            TimeoutError: some did not come.
        """
        self._expected = events
        self._look()
        async with asyncio.timeout(LATE_SECONDS):
            await self._all_heard.wait()

    def leave(self) -> None:
        for task in self._listening:
            task.cancel()

    def _look(self) -> None:
        if self._expected is not None and len(self.seconds) >= self._expected:
            self._all_heard.set()

    async def _feed(self, user: int) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(get(f"/v1/tenants/shop/users/u{user}/live", key("shop", KeyUse.READ)))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.partition(b"\r\n")[0], head
        await reader.readuntil(b": beat\nid: ")  # where it begins: what is published from now on is heard
        return reader, writer

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                part = await reader.readuntil(b"\n\n")
                now = time.time_ns()
                self.seconds += [(now - int(at)) / 1e9 for at in AT.findall(part)]
                self._look()
        finally:
            writer.close()


def live(bench: Bench) -> None:
    """Live feeds of 500 users: published to received, without and with nine times as many events of others beside."""
    topic = bench.arena.topic()
    with bench.arena.keyspace(["shop"], **with_keys("shop")) as target:
        environment = bench.arena.environment(topic, target, "live")
        world = World(bench.arena.folder, load_settings(registry=target.registry_path), environment)
        with running_gateway(world, "--only", "read") as gateway:
            ask = "/v1/tenants/shop/users/u0/count"
            until(lambda: gateway.ask("GET", ask, key=key("shop", KeyUse.READ)).status == 200, "the cluster")
            for others in OTHERS_A_SECOND:
                producer = RecordProducer(bench.arena.kafka, ProducerSettings(), topic)
                before = cpu_seconds(gateway.process.pid)
                seconds = uvloop.run(_watched(gateway.port, producer, others, bench.scale.seconds))
                cpu = cpu_seconds(gateway.process.pid) - before
                bench.record("live", f"{WATCHERS} watchers, {WATCHED_A_SECOND}/s of {WATCHED_A_SECOND + others:,}/s", latency("fresh", seconds) | {
                    "fresh_max_ms": max(seconds) * 1e3, "cpu_us": cpu / len(seconds) * 1e6, "events": len(seconds),
                })  # fmt: skip


async def _watched(port: int, producer: RecordProducer, others: int, seconds: float) -> list[float]:
    """Seconds that each event of the watched users took."""
    audience = Audience(port)
    try:
        await audience.gather()
        settle_garbage()  # else what the benchmark itself holds is looked through in the midst of it
        published = await _publish(producer, others / WATCHED_A_SECOND, seconds)
        await audience.heard(published)
    finally:
        audience.leave()
    assert len(audience.seconds) == published, f"{published} published, {len(audience.seconds)} received"
    return audience.seconds


async def _publish(producer: RecordProducer, others_each: float, seconds: float) -> int:
    """At a steady rate, on the loop that listens: one clock. How many were published of users who are watched."""
    start = time.perf_counter()
    watched = others = 0
    while (since := time.perf_counter() - start) < seconds:
        while watched < since * WATCHED_A_SECOND:
            _produce(producer, f"u{watched % WATCHERS}")
            watched += 1
            while others < watched * others_each:
                _produce(producer, f"other-{others}")
                others += 1
        await asyncio.sleep(TICK_SECONDS)
    await asyncio.to_thread(producer.confirm)
    return watched


def _produce(producer: RecordProducer, uid: str) -> None:
    at = time.time_ns()
    event = {"tenant": "shop", "uid": uid, "event": "viewed", "timestamp": at // 1_000_000,
             "properties": {"at_ns": at, "page": PADDING}}  # fmt: skip
    producer.publish(f"shop:{uid}".encode(), orjson.dumps(event))
