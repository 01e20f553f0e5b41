"""Publishing from many requests at once: each waits for Kafka's confirmation of its own records, together they share batches."""

import asyncio
import threading
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import Producer

from eventstore.config import KafkaSettings, ProducerSettings
from eventstore.errors import KafkaError, TransientKafkaError
from eventstore.stream.client import open_client, producer_config
from eventstore.stream.failures import kafka_error, mapped

POLL_SECONDS: Final = 0.1
"""Longest wait for confirmations, and so of a stop; those that come in earlier end it."""


class Outgoing(NamedTuple):
    key: bytes
    value: bytes


class _Pending:
    """The records of one call that Kafka has not confirmed yet."""

    __slots__ = ("error", "future", "left", "publisher")

    def __init__(self, publisher: "Publisher") -> None:
        self.publisher = publisher
        self.future: asyncio.Future[None] = publisher.loop.create_future()
        self.left = 1
        """One more than records, until all have been handed over: the first must not end the wait for the others."""
        self.error: Any = None

    def delivered(self, error: Any, _: Any) -> None:
        """Called on the polling thread, once for every record."""
        if error is not None:
            self.error = error
        self.settle()

    def settle(self) -> None:
        with self.publisher.lock:
            self.left -= 1
            done = not self.left
        if done:
            self.publisher.finished(self)


class Publisher:
    """An idempotent producer for one event loop; its queue is bounded, and full it refuses instead of waiting."""

    def __init__(self, kafka: KafkaSettings, producer: ProducerSettings, topic: str) -> None:
        """Raises ConfigurationError if librdkafka refuses a setting."""
        self.topic = topic
        self.loop = asyncio.get_running_loop()
        self.lock = threading.Lock()
        self._patience = producer.delivery_timeout + 5.0
        self._doing = f"publishing to {topic}"
        self._client = open_client(Producer, producer_config(kafka, producer))
        self._done: list[_Pending] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="confirmations", daemon=True)
        self._thread.start()

    async def publish(self, records: Iterable[Outgoing]) -> None:
        """Returns when every in-sync replica has every record.

        After an error some of the records may have been published: publishing them again must do no harm.

        Raises:
            TransientKafkaError: the queue is full, or Kafka did not confirm in time.
            PermanentKafkaError: the topic is missing, access is refused, a record is too large for the topic.
        """
        pending = _Pending(self)
        produce, topic, delivered = self._client.produce, self.topic, pending.delivered
        refused: KafkaError | None = None
        try:
            with mapped(self._doing):
                for key, value in records:
                    pending.left += 1
                    produce(topic, value, key, on_delivery=delivered)
        except BufferError:
            refused = TransientKafkaError(f"{self._doing}: too much waits for Kafka's confirmation; try again later")
        except KafkaError as error:
            refused = error
        if refused is not None:
            with self.lock:
                pending.left -= 1
        pending.settle()
        await pending.future
        if refused is not None:
            raise refused
        if pending.error is not None:
            raise kafka_error(pending.error, self._doing)

    def finished(self, pending: _Pending) -> None:
        """All confirmations of one call are in."""
        with self.lock:
            self._done.append(pending)
            first = len(self._done) == 1
        if first:
            self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        with self.lock:
            done, self._done = self._done, []
        for pending in done:
            if not pending.future.done():
                pending.future.set_result(None)

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._client.poll(POLL_SECONDS)

    async def close(self) -> None:
        """Wait until Kafka has confirmed, or refused, all that was handed over."""
        await self.loop.run_in_executor(None, self._client.flush, self._patience)
        self._stopping.set()
        await self.loop.run_in_executor(None, self._thread.join)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
