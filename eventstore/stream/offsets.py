"""Offsets of one topic: what it holds, what was appended when, where groups stand, and moving them."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from confluent_kafka import ConsumerGroupTopicPartitions, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from eventstore.config import KafkaSettings
from eventstore.stream.client import client_config, open_client
from eventstore.stream.committed import committed
from eventstore.stream.failures import kafka_error, mapped

REQUEST_TIMEOUT: Final = 15.0
"""Seconds until a request to the brokers is given up."""


class Held(NamedTuple):
    """Offsets that a partition holds: from `first` up to before `end`."""

    first: int
    end: int


class TopicOffsets:
    """Every method raises TransientKafkaError or PermanentKafkaError when the brokers cannot or will not answer."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        """Raises ConfigurationError if librdkafka refuses a setting."""
        self.topic = topic
        self._kafka = kafka
        self._client = open_client(AdminClient, client_config(kafka))

    def topic_id(self) -> str:
        """What tells the topic from one of the same name that is created when this one is gone."""
        with mapped(f"looking at topic {self.topic}"):
            asked = TopicCollection([self.topic])
            answers = self._client.describe_topics(asked, request_timeout=REQUEST_TIMEOUT)
            return str(answers[self.topic].result().topic_id)

    def held(self) -> dict[int, Held]:
        """What each partition holds now."""
        partitions = self._partitions()
        first = self._at(partitions, OffsetSpec.earliest())
        end = self._at(partitions, OffsetSpec.latest())
        return {partition: Held(first[partition], end[partition]) for partition in partitions}

    def since(self, ms: int) -> dict[int, int]:
        """The first offset of each partition that was appended at this time or later; its end if none was."""
        partitions = self._partitions()
        end = self._at(partitions, OffsetSpec.latest())
        found = self._at(partitions, OffsetSpec.for_timestamp(ms))
        return {partition: end[partition] if offset < 0 else offset for partition, offset in found.items()}

    def committed(self, group: str) -> dict[int, int]:
        """Where the group stands; a partition in which it has committed nothing is left out."""
        places = [TopicPartition(self.topic, partition) for partition in self._partitions()]
        found = committed(self._kafka, group, places, REQUEST_TIMEOUT)
        return {partition: offset for (_, partition), offset in found.items()}

    def members(self, group: str) -> list[str]:
        """Who is active in the group, `client@host`; nobody if there is no such group."""
        with mapped(f"asking who is in group {group}"):
            answers = self._client.describe_consumer_groups([group], request_timeout=REQUEST_TIMEOUT)
            return [f"{each.client_id}@{each.host.lstrip('/')}" for each in answers[group].result().members]

    def move(self, group: str, offsets: Mapping[int, int]) -> None:
        """Have the group go on at these offsets. Kafka refuses it while the group has members."""
        places = [TopicPartition(self.topic, partition, offset) for partition, offset in offsets.items()]
        with mapped(f"moving group {group}"):
            asked = ConsumerGroupTopicPartitions(group, places)
            answers = self._client.alter_consumer_group_offsets([asked], request_timeout=REQUEST_TIMEOUT)
            for each in answers[group].result().topic_partitions:
                if each.error is not None:
                    raise kafka_error(each.error, f"moving group {group} on {self.topic}/{each.partition}")

    def _partitions(self) -> list[int]:
        with mapped(f"looking at topic {self.topic}"):
            found = self._client.list_topics(self.topic, timeout=REQUEST_TIMEOUT).topics[self.topic]
            if found.error is not None:
                raise kafka_error(found.error, f"looking at topic {self.topic}")
        return sorted(found.partitions)

    def _at(self, partitions: list[int], spec: OffsetSpec) -> dict[int, int]:
        asked = {TopicPartition(self.topic, partition): spec for partition in partitions}
        with mapped(f"looking at the offsets of {self.topic}"):
            answers = self._client.list_offsets(asked, request_timeout=REQUEST_TIMEOUT)
            return {place.partition: answer.result().offset for place, answer in answers.items()}
