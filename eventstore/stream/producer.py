"""Publishing with confirmation: what was handed over is either confirmed by Kafka or an error, never forgotten."""

from collections.abc import Sequence
from typing import Any

from confluent_kafka import Producer

from eventstore.config import KafkaSettings, ProducerSettings
from eventstore.errors import TransientKafkaError
from eventstore.stream.client import open_client, producer_config
from eventstore.stream.failures import kafka_error, mapped

FULL_QUEUE_WAIT = 0.1
"""Seconds that one poll waits for room in the queue; confirmations that come in earlier end it."""
POLL_EVERY = 100
"""Records between two looks at the confirmations: each look costs as much as handing a record over."""


class RecordProducer:
    """An idempotent producer for one thread. librdkafka's queue bounds its memory; a full queue makes `publish` wait."""

    def __init__(self, kafka: KafkaSettings, producer: ProducerSettings, topic: str) -> None:
        """Raises ConfigurationError if librdkafka refuses a setting."""
        self.topic = topic
        self.published = 0
        self.confirmed = 0
        self.failed = 0
        self.confirmed_bytes = 0
        self._failure: tuple[Any, str] | None = None
        # a little over the client's own limit: its report of a failure says more than ours
        self._patience = producer.delivery_timeout + 5.0
        self._client = open_client(Producer, producer_config(kafka, producer) | {"on_delivery": self._delivered})

    def publish(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        *,
        topic: str | None = None,
        partition: int = -1,
    ) -> None:
        """Hand one record over, to the key's partition unless one is named; returns before it is confirmed.

        Raises:
            KafkaError: this record is refused, or an earlier one failed (then all others have been waited for).
        """
        if self._failure is not None:
            self.confirm()
        while True:
            try:
                with mapped(f"publishing to {topic or self.topic}"):
                    self._client.produce(topic or self.topic, value, key, partition, headers=list(headers))
                break
            except BufferError:
                self._client.poll(FULL_QUEUE_WAIT)
        self.published += 1
        if self.published % POLL_EVERY == 0:
            self._client.poll(0)

    def confirm(self) -> None:
        """Wait until Kafka has confirmed everything published so far.

        Raises:
            TransientKafkaError: not in time.
            PermanentKafkaError: the topic is missing, access is refused, a record is too large for the topic.
        """
        with mapped(self._doing):
            waiting = self._client.flush(self._patience)
        failure, self._failure = self._failure, None
        if failure is not None:
            error, topic = failure
            raise kafka_error(error, f"publishing to {topic}")
        if waiting:
            raise TransientKafkaError(
                f"{self._doing}: expected every confirmation within {self._patience:.0f} s, {waiting} are missing; "
                "check that the brokers are up, then try again"
            )

    def abandon(self) -> None:
        """Give up what is not confirmed yet. Any thread may call it; a `confirm` under way raises."""
        self._client.purge()

    @property
    def _doing(self) -> str:
        return f"publishing to {self.topic}"

    def _delivered(self, error: Any, message: Any) -> None:
        if error is None:
            self.confirmed += 1
            self.confirmed_bytes += len(message)
            return
        self.failed += 1
        if self._failure is None:
            self._failure = error, message.topic()
