"""Connections to clusters: made once, tried again with pauses, let go of when the registry no longer has them."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from eventstore.errors import TransientStoreError
from eventstore.store.connections import PAUSE_SECONDS, RECENT_SECONDS, Connections
from eventstore.tenancy import Cluster
from tests.builders import cluster
from tests.waiting import until

pytestmark = pytest.mark.unit

ONE, TWO = cluster("one"), cluster("two")


class Line:
    def __init__(self, to: Cluster) -> None:
        self.to = to
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Exchange:
    """What connects: counts, refuses when told to, and waits while it is held."""

    def __init__(self) -> None:
        self.attempts: list[str] = []
        self.away = False
        self.now = 100.0
        self.free = threading.Event()
        self.free.set()

    async def connect(self, to: Cluster) -> Line:
        self.attempts.append(to.name)
        assert await asyncio.to_thread(self.free.wait, 60)
        if self.away:
            raise TransientStoreError(f"cluster {to.name}: no node answers")
        return Line(to)


def run(scenario: Callable[[Exchange, Connections[Line]], Awaitable[None]]) -> None:
    async def main() -> None:
        exchange = Exchange()
        lines = Connections(exchange.connect, lambda: exchange.now)
        try:
            await scenario(exchange, lines)
        finally:
            exchange.free.set()
            await lines.close()

    asyncio.run(main())


def test_all_who_ask_share_one_connection_a_cluster() -> None:
    async def scenario(exchange: Exchange, lines: Connections[Line]) -> None:
        first, second, other = await asyncio.gather(lines.of(ONE), lines.of(ONE), lines.of(TWO))
        assert first is second is await lines.of(ONE)
        assert other.to is TWO
        assert sorted(exchange.attempts) == ["one", "two"]

    run(scenario)


def test_a_cluster_that_is_away_is_not_tried_by_every_caller() -> None:
    async def scenario(exchange: Exchange, lines: Connections[Line]) -> None:
        exchange.away = True
        for _ in range(50):
            with pytest.raises(TransientStoreError, match="no node answers"):
                await lines.of(ONE)
        assert exchange.attempts == ["one"]

    run(scenario)


def test_nobody_waits_for_a_cluster_that_has_failed_a_moment_ago() -> None:
    async def scenario(exchange: Exchange, lines: Connections[Line]) -> None:
        exchange.away = True
        with pytest.raises(TransientStoreError):
            await lines.of(ONE)
        exchange.now += PAUSE_SECONDS
        exchange.free.clear()  # the next attempt hangs
        for _ in range(2):
            with pytest.raises(TransientStoreError):
                await lines.of(ONE)
        await asyncio.to_thread(until, lambda: len(exchange.attempts) == 2, "the second attempt")

    run(scenario)


def test_a_cluster_that_is_back_is_found_by_the_attempt_that_a_caller_has_begun() -> None:
    async def scenario(exchange: Exchange, lines: Connections[Line]) -> None:
        exchange.away = True
        with pytest.raises(TransientStoreError):
            await lines.of(ONE)
        exchange.away = False
        exchange.now += PAUSE_SECONDS
        with pytest.raises(TransientStoreError):
            await lines.of(ONE)
        attempt = lines._links[ONE].attempt
        assert attempt is not None
        await attempt
        assert (await lines.of(ONE)).to is ONE

    run(scenario)


def test_an_old_failure_says_nothing_about_now() -> None:
    async def scenario(exchange: Exchange, lines: Connections[Line]) -> None:
        exchange.away = True
        with pytest.raises(TransientStoreError):
            await lines.of(ONE)
        exchange.away = False
        exchange.now += RECENT_SECONDS
        assert (await lines.of(ONE)).to is ONE

    run(scenario)


def test_who_leaves_while_it_is_being_made_does_not_end_it_for_others() -> None:
    async def scenario(exchange: Exchange, lines: Connections[Line]) -> None:
        exchange.free.clear()
        leaving, staying = asyncio.create_task(lines.of(ONE)), asyncio.create_task(lines.of(ONE))
        await asyncio.sleep(0)
        leaving.cancel()
        exchange.free.set()
        assert (await staying).to is ONE
        assert leaving.cancelled()

    run(scenario)


def test_what_the_registry_no_longer_has_is_let_go_of_once_it_is_out_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(exchange: Exchange, lines: Connections[Line]) -> None:
        monkeypatch.setattr("eventstore.store.connections.GRACE_SECONDS", 0.01)
        old, other = await asyncio.gather(lines.of(ONE), lines.of(TWO))
        changed = replace(ONE, contact_points=("127.0.0.9",))
        lines.retain([changed, TWO])
        new = await lines.of(changed)
        assert new.to is changed
        assert not old.closed  # something may still be read over it
        await asyncio.gather(*lines._leaving)
        assert (old.closed, new.closed, other.closed) == (True, False, False)

    run(scenario)


def test_closing_ends_all_and_what_is_still_being_made() -> None:
    async def scenario(exchange: Exchange, lines: Connections[Line]) -> None:
        made = await lines.of(ONE)
        exchange.free.clear()
        asking = asyncio.create_task(lines.of(TWO))
        await asyncio.sleep(0)
        exchange.free.set()
        await lines.close()
        assert made.closed
        assert (await asking).closed

    run(scenario)
