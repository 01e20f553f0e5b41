"""Publishing while no broker answers."""

import asyncio

import pytest

from eventstore.config import KafkaSettings, ProducerSettings, TopicSettings
from eventstore.stream.diverts import DivertProducer
from tests.fake_cql import free_port
from tests.loops import on_event_loop
from tests.records import message
from tests.waiting import eventually

pytestmark = pytest.mark.unit


@on_event_loop
async def test_closing_gives_up_what_nobody_waits_for_any_more() -> None:
    nobody = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}")
    patient = ProducerSettings(delivery_timeout=3_600)
    async with asyncio.timeout(60):
        async with DivertProducer(nobody, patient, TopicSettings()) as producer:
            sending = [asyncio.create_task(producer.send("c30", [message(1)])) for _ in range(3)]
            client = producer._producer._producer
            await eventually(lambda: client.published > 0, "the first record")
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
    assert client.confirmed == 0
    assert client.published == 1
