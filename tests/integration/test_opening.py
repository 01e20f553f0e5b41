"""The way to a writer, given up halfway."""

import asyncio

import pytest

from eventstore.config import WriterSettings
from eventstore.store.opening import open_writer
from tests.builders import cluster, tier
from tests.fake_cql import fake_ring
from tests.loops import on_event_loop
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@on_event_loop
async def test_a_connection_that_nobody_waits_for_any_more_is_closed() -> None:
    async with fake_ring(held=True) as ring:
        (node,) = ring.nodes
        there = cluster(contact_points=(node.address,), port=ring.port)
        opening = asyncio.create_task(open_writer(tier(on=there), WriterSettings()))
        await eventually(lambda: bool(node.connections), "the driver")
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        assert opening.cancelled()
        node.release()
        await eventually(lambda: not node.connections, "the connection's end", seconds=10)
