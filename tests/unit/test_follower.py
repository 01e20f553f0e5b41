"""The thread that reads for live feeds, while no broker answers."""

import asyncio
from threading import Event

import pytest

from eventstore.config import KafkaSettings
from eventstore.stream.follower import Follower
from eventstore.stream.offsets import Held
from eventstore.stream.watch import Watch
from tests.fake_cql import free_port
from tests.loops import on_event_loop

pytestmark = pytest.mark.unit


def watch(uid: str) -> Watch:
    made = Watch(f"shop:{uid}".encode(), 3)
    made.held = Held(0, 5)
    return made


def wait_for(event: Event) -> None:
    event.wait()


@on_event_loop
async def test_a_feed_that_is_given_up_before_it_has_begun_ends_nobody_elses() -> None:
    follower = Follower(KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}"), "events")
    busy = Event()
    try:
        async with asyncio.timeout(60):
            follower._wanted.put(lambda: wait_for(busy))
            gone = watch("gone")
            opening = asyncio.wrap_future(follower.begin(gone))
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            follower.leave(gone)
            busy.set()
            other = watch("other")
            await asyncio.wrap_future(follower.begin(other))
            assert other.start == 5
            assert list(follower._watched[3]) == [other.key]
    finally:
        busy.set()
        await asyncio.to_thread(follower.close)
