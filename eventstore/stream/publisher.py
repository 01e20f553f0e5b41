"""Publishing from many requests at once: each waits for Kafka's confirmation of its own records, together they share batches."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NamedTuple, Self

import structlog
from confluent_kafka import KafkaError as Code
from confluent_kafka import KafkaException, Producer

from eventstore.config import KafkaSettings, ProducerSettings
from eventstore.errors import KafkaError, PermanentKafkaError, TransientKafkaError
from eventstore.stream.client import open_client, producer_config
from eventstore.stream.failures import kafka_error, mapped

log = structlog.stdlib.get_logger(__name__)

DUE_SECONDS: Final = 0.002
"""Between two looks for confirmations while any is due. A thread that waits for them would fight the loop for the interpreter's
lock once a record: a fifth of the gateway's CPU."""
IDLE_SECONDS: Final = 1.0
"""The same while none is: what the client has to say of its brokers comes by the same way."""
NOTE_SECONDS: Final = 1.0
"""Between two lines of the log about refusals, however many records they meet."""

Headers = list[tuple[str, bytes | None]]


class Outgoing(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: Headers | None = None


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
        self.fatal: str | None = None
        """Why nothing can be published any more, until the process is started anew."""
        self._noted = -NOTE_SECONDS
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
        refusal = self._hand_over(records, pending)
        if pending.left:
            self._expect()
            await pending.future
        refusal = refusal or pending.error
        if refusal is None:
            return
        if refusal.code() == Code._QUEUE_FULL:  # noqa: SLF001 — so the client spells it
            raise TransientKafkaError(f"{self._doing}: too much waits for Kafka's confirmation; try again later")
        error = kafka_error(refusal, self._doing)
        self._note(error, fatal=refusal.fatal())
        raise error

    def _note(self, error: KafkaError, *, fatal: bool) -> None:
        """What never passes by itself is the operator's to know, not only the callers'."""
        if fatal:
            self.fatal = str(error)
        if isinstance(error, PermanentKafkaError) and (now := monotonic()) - self._noted >= NOTE_SECONDS:
            self._noted = now
            log.error("Kafka refuses what is published", error=str(error), fatal=fatal)

    def _hand_over(self, records: Sequence[Outgoing], pending: _Pending) -> Any:
        """Queue the records; why one of them cannot be, if so. `pending.left` is how many are."""
        if not any(record.headers for record in records):
            messages: list[dict[str, Any]] = [{"key": record.key, "value": record.value} for record in records]
            with mapped(self._doing):
                pending.left = self._client.produce_batch(self.topic, messages, on_delivery=pending.delivered)
            return next((error for each in messages if (error := each.get("_error")) is not None), None)
        for key, value, headers in records:  # the client's batches know no headers
            try:
                self._client.produce(self.topic, value, key, headers=headers, on_delivery=pending.delivered)
            except BufferError:
                return Code(Code._QUEUE_FULL)  # noqa: SLF001
            except KafkaException as error:
                return error.args[0]
            pending.left += 1
        return None

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
