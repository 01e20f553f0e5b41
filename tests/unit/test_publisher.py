"""What a publisher tells of records that Kafka never confirms: nobody listens at the address that it is given."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from eventstore.config import KafkaSettings, ProducerSettings
from eventstore.errors import TransientKafkaError
from eventstore.stream.publisher import Outgoing, Publisher
from tests.fake_cql import free_port

pytestmark = pytest.mark.unit

ONE = Outgoing(b"shop:u1", b"{}")
HEADED = Outgoing(b"shop:u1", b"{}", [("why", b"because")])


def with_publisher(use: Callable[[Publisher], Awaitable[None]]) -> None:
    """Of a queue for two records, which are given up after half a second."""

    async def scenario() -> None:
        kafka = KafkaSettings(
            bootstrap_servers=f"127.0.0.1:{free_port()}", options={"queue.buffering.max.messages": "2"}
        )
        async with Publisher(kafka, ProducerSettings(delivery_timeout=0.5), "events") as publisher:
            await use(publisher)

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_what_is_not_confirmed_in_time_is_an_error_and_the_next_call_is_judged_by_itself() -> None:
    async def use(publisher: Publisher) -> None:
        for _ in range(2):
            with pytest.raises(TransientKafkaError, match="publishing to events"):
                await publisher.publish([ONE])

    with_publisher(use)


def test_a_full_queue_refuses_at_once_what_it_has_no_room_for() -> None:
    async def use(publisher: Publisher) -> None:
        first = asyncio.create_task(publisher.publish([ONE, ONE]))
        await asyncio.sleep(0)
        with pytest.raises(TransientKafkaError, match="too much waits"):
            await publisher.publish([ONE])
        assert not first.done()
        with pytest.raises(TransientKafkaError):
            await first

    with_publisher(use)


@pytest.mark.parametrize("record", [ONE, HEADED], ids=["plain", "with headers"])
def test_a_call_of_which_only_a_part_was_taken_ends_when_that_part_is_done_with(record: Outgoing) -> None:
    async def use(publisher: Publisher) -> None:
        with pytest.raises(TransientKafkaError, match="too much waits"):
            await publisher.publish([record] * 5)
        with pytest.raises(TransientKafkaError, match="publishing to events"):  # there is room again
            await publisher.publish([ONE])

    with_publisher(use)


def test_who_goes_away_disturbs_nobody() -> None:
    async def use(publisher: Publisher) -> None:
        gone = asyncio.create_task(publisher.publish([ONE]))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(TransientKafkaError):
            await publisher.publish([ONE])

    with_publisher(use)


def test_no_records_are_confirmed_at_once() -> None:
    with_publisher(lambda publisher: publisher.publish([]))
