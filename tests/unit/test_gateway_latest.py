"""A user's newest events over HTTP: shared, bounded and answered, over a timeline in memory."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from eventstore.config import ReaderSettings
from eventstore.errors import TransientStoreError
from eventstore.events.stored import StoredEvent
from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.bulkhead import Bulkhead
from eventstore.gateway.http import HttpError, Request, Response
from eventstore.gateway.latest import LatestReader
from eventstore.tenancy import Tenant
from eventstore.timeline import Timeline
from tests.builders import DAY_MS, NOW_MS, registry, stored, tier
from tests.gateways import no_body
from tests.timeline_memory import MemoryStore

pytestmark = pytest.mark.unit

NO_HEADERS: Any = {}
SHOP = Tenant("shop", tier(), latest=("product_viewed", "added_to_cart"))


class Store(MemoryStore):
    """Answers when it is let, or fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.free.set()
        self.error: Exception | None = None
        self.names: list[list[str]] = []

    async def latest(self, tenant: str, uid: str, names: Sequence[str]) -> list[StoredEvent]:
        self.names.append([*names])
        await self.free.wait()
        if self.error is not None:
            raise self.error
        return await super().latest(tenant, uid, names)


class Desk:
    def __init__(self) -> None:
        self.store = Store()
        known = registry(SHOP)
        timeline = Timeline(lambda: known, self.store, lambda: NOW_MS, ReaderSettings(), DAY_MS)
        self.reader = LatestReader(Doorkeeper(lambda: known, lambda: 0.0), timeline, Bulkhead(4, 0.2))

    async def ask(self, query: str = "") -> Response:
        return await self.reader.latest(Request(
            method="GET", path="", query_string=query, headers=NO_HEADERS, receive=no_body, body_seconds=1.0,
            received_micros=NOW_MS * 1_000, params={"uid": "u1"}, tenant=SHOP,
        ))  # fmt: skip


def test_stored_json_is_answered_as_it_is_by_name() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.store.keep("shop", "u1", msgspec.structs.replace(stored(), properties=msgspec.Raw(b'{"price": 1.50}')))
        answer = await desk.ask()
        assert b'"product_viewed":{"timestamp":%d' % NOW_MS in answer.body
        assert b'{"price": 1.50}' in answer.body
        assert json.loads((await desk.ask("events=added_to_cart")).body) == {"latest": {}}
        assert desk.store.names == [["product_viewed", "added_to_cart"], ["added_to_cart"]]

    asyncio.run(scenario())


def test_the_same_question_at_the_same_time_is_one_read() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.store.free.clear()
        asking = [asyncio.create_task(desk.ask()) for _ in range(3)]
        asking.append(asyncio.create_task(desk.ask("events=product_viewed")))
        await asyncio.sleep(0)
        desk.store.free.set()
        assert {(await each).status for each in asking} == {200}
        assert len(desk.store.names) == 2

    asyncio.run(scenario())


def test_a_store_that_fails_or_hangs_is_told_with_its_status() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.store.error = TransientStoreError("gone")
        for status in (503, 504):
            with pytest.raises(HttpError) as refused:
                await desk.ask()
            assert refused.value.status == status
            desk.store.free.clear()

    asyncio.run(scenario())
