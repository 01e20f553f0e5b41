"""Publishing from many requests at once: each waits for Kafka's confirmation of its own records, together they share batches."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import KafkaError as Code
from confluent_kafka import Producer

from eventstore.config import KafkaSettings, ProducerSettings
from eventstore.errors import TransientKafkaError
from eventstore.stream.client import open_client, producer_config
from eventstore.stream.failures import kafka_error, mapped

DUE_SECONDS: Final = 0.002
"""Between two looks for confirmations while any is due. A thread that waits for them would fight the loop for the interpreter's
lock once a record: a fifth of the gateway's CPU."""
IDLE_SECONDS: Final = 1.0
"""The same while none is: what the client has to say of its brokers comes by the same way."""


class Outgoing(NamedTuple):
    key: bytes
    value: bytes


class _Pending:
    """The records of one call that Kafka has not confirmed yet."""

    __slots__ = ("error", "future", "left", "publisher")

    def __init__(self, publisher: "Publisher") -> None:
        self.publisher = publisher
        self.future: asyncio.Future[None] = publisher.loop.create_future()
        self.left = 0
        self.error: Any = None

    def delivered(self, error: Any, _: Any) -> None:
        """Called once for every record, by the look for confirmations."""
        if error is not None:
            self.error = error
        self.left -= 1
        if not self.left:
            self.publisher.confirmed()
            if not self.future.done():  # done: who waited has gone
                self.future.set_result(None)


class Publisher:
    """An idempotent producer for one event loop; its queue is bounded, and full it refuses instead of waiting."""

    def __init__(self, kafka: KafkaSettings, producer: ProducerSettings, topic: str) -> None:
        """Raises ConfigurationError if librdkafka refuses a setting."""
        self.topic = topic
        self.loop = asyncio.get_running_loop()
        self._patience = producer.delivery_timeout + 5.0
        self._doing = f"publishing to {topic}"
        self._client = open_client(Producer, producer_config(kafka, producer))
        self._due = 0
        """Calls that wait for confirmations."""
        self._idle = asyncio.Event()
        """Set while none does."""
        self._idle.set()
        self._next_look = self.loop.call_later(IDLE_SECONDS, self._look)

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Returns when every in-sync replica has every record.

        After an error some of the records may have been published: publishing them again must do no harm.

        Raises:
            TransientKafkaError: the queue is full, or Kafka did not confirm in time.
            PermanentKafkaError: the topic is missing, access is refused, a record is too large for the topic.
        """
        pending = _Pending(self)
        messages: list[dict[str, Any]] = [{"key": key, "value": value} for key, value in records]
        with mapped(self._doing):
            pending.left = self._client.produce_batch(self.topic, messages, on_delivery=pending.delivered)
        if pending.left:
            self._expect()
            await pending.future
        refusal = next((error for each in messages if (error := each.get("_error")) is not None), pending.error)
        if refusal is None:
            return
        if refusal.code() == Code._QUEUE_FULL:  # noqa: SLF001 — so the client spells it
            raise TransientKafkaError(f"{self._doing}: too much waits for Kafka's confirmation; try again later")
        raise kafka_error(refusal, self._doing)

    def confirmed(self) -> None:
        """All records of a call are."""
        self._due -= 1
        if not self._due:
            self._idle.set()

    def _expect(self) -> None:
        if not self._due:
            self._idle.clear()
            self._next_look.cancel()
            self._next_look = self.loop.call_later(DUE_SECONDS, self._look)
        self._due += 1

    def _look(self) -> None:
        try:
            self._client.poll(0)
        finally:
            self._next_look = self.loop.call_later(DUE_SECONDS if self._due else IDLE_SECONDS, self._look)

    async def close(self) -> None:
        """Wait until Kafka has confirmed, or refused, all that was handed over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), self._patience)
        self._next_look.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
