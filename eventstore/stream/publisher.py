"""Publishing from many requests at once: each waits for Kafka's confirmation of its own records, together they share batches."""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import KafkaError as Code
from confluent_kafka import Producer

from eventstore.config import KafkaSettings, ProducerSettings
from eventstore.errors import TransientKafkaError
from eventstore.stream.client import open_client, producer_config
from eventstore.stream.failures import kafka_error, mapped

POLL_SECONDS: Final = 0.1
"""Longest wait for confirmations, and so of a stop; those that come in earlier end it."""


class Outgoing(NamedTuple):
    key: bytes
    value: bytes


class _Pending:
    """The records of one call that Kafka has not confirmed yet.

    The polling thread counts what comes back, the event loop says how many there are, once it has handed them over. Each looks
    at the other's number after it has set its own: one of them at least sees that all are back, and if both do, no harm is done.
    """

    __slots__ = ("back", "error", "future", "publisher", "sent")

    def __init__(self, publisher: "Publisher") -> None:
        self.publisher = publisher
        self.future: asyncio.Future[None] = publisher.loop.create_future()
        self.back = 0
        self.sent: int | None = None
        self.error: Any = None

    def delivered(self, error: Any, _: Any) -> None:
        """Called on the polling thread, once for every record."""
        if error is not None:
            self.error = error
        self.back += 1
        if self.back == self.sent:
            self.publisher.finished(self)

    def handed_over(self, sent: int) -> None:
        """So many records will come back."""
        self.sent = sent
        if self.back == sent:
            self.publisher.finished(self)


class Publisher:
    """An idempotent producer for one event loop; its queue is bounded, and full it refuses instead of waiting."""

    def __init__(self, kafka: KafkaSettings, producer: ProducerSettings, topic: str) -> None:
        """Raises ConfigurationError if librdkafka refuses a setting."""
        self.topic = topic
        self.loop = asyncio.get_running_loop()
        self._patience = producer.delivery_timeout + 5.0
        self._doing = f"publishing to {topic}"
        self._client = open_client(Producer, producer_config(kafka, producer))
        self._done: deque[_Pending] = deque()
        self._woken = False
        """The loop has been asked to take what is done."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="confirmations", daemon=True)
        self._thread.start()

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
            pending.handed_over(self._client.produce_batch(self.topic, messages, on_delivery=pending.delivered))
        await pending.future
        refusal = next((error for each in messages if (error := each.get("_error")) is not None), pending.error)
        if refusal is None:
            return
        if refusal.code() == Code._QUEUE_FULL:  # noqa: SLF001 — so the client spells it
            raise TransientKafkaError(f"{self._doing}: too much waits for Kafka's confirmation; try again later")
        raise kafka_error(refusal, self._doing)

    def finished(self, pending: _Pending) -> None:
        """All confirmations of one call are in."""
        self._done.append(pending)
        if not self._woken:
            self._woken = True
            self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._woken = False  # first: what is appended from here on wakes the loop again
        while self._done:
            future = self._done.popleft().future
            if not future.done():
                future.set_result(None)

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
