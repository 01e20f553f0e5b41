"""How far a consumer group is behind the end of a topic."""

from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from confluent_kafka import Consumer, TopicPartition

from eventstore.config import KafkaSettings
from eventstore.stream.client import client_config, open_client
from eventstore.stream.failures import ask_until_answered, kafka_error, mapped

ANSWER_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Offsets by partition: where the group stands and where the topic ends."""

    committed: dict[int, int]
    """The first held offset where the group has committed nothing."""
    end: dict[int, int]

    @property
    def lag(self) -> int:
        return sum(self.end.values()) - sum(self.committed.values())


class GroupLag:
    """Asks Kafka for a group's standing without being a member of it. Use as a context manager."""

    def __init__(self, kafka: KafkaSettings, group: str, topic: str) -> None:
        self._topic = topic
        self._doing = f"asking for the lag on {topic}"
        self._client = open_client(Consumer, client_config(kafka) | {"group.id": group, "enable.auto.commit": False})

    def read(self) -> Standing:
        """The standing now; asked for again while the group's coordinator moves, as it does in a cluster's first seconds.

        Raises:
            KafkaError: Kafka does not answer in time, or has no such topic.
        """
        return ask_until_answered(self._read, ANSWER_SECONDS)

    def _read(self) -> Standing:
        with mapped(self._doing):
            found = self._client.list_topics(self._topic, timeout=ANSWER_SECONDS).topics[self._topic]
            if found.error is not None:
                raise kafka_error(found.error, self._doing)
            partitions = [TopicPartition(self._topic, number) for number in found.partitions]
            bounds = {p.partition: self._client.get_watermark_offsets(p, timeout=ANSWER_SECONDS) for p in partitions}
            committed = self._client.committed(partitions, timeout=ANSWER_SECONDS)
        for partition in committed:
            if partition.error is not None:
                raise kafka_error(partition.error, self._doing)
        return Standing(
            committed={p.partition: p.offset if p.offset >= 0 else bounds[p.partition][0] for p in committed},
            end={number: end for number, (_, end) in bounds.items()},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()
