"""What waits in the retry topics: by cluster, how many records its drains have not committed."""

from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from eventstore.config import KafkaSettings, TopicSettings
from eventstore.stream.client import client_config, open_client
from eventstore.stream.committed import committed
from eventstore.stream.failures import mapped
from eventstore.stream.topics import retry_topic

REQUEST_TIMEOUT: Final = 15.0
"""Seconds until a request to the brokers is given up."""

Offsets = Mapping[tuple[str, int], int]
"""By topic and partition."""


def drain_group(group: str, cluster: str) -> str:
    """The consumer group that drains a cluster's retry topic, beside the workers' own."""
    return f"{group}.retry.{cluster}"


class Backlogs:
    """Asks Kafka without being a member of any group. For one thread at a time."""

    def __init__(self, kafka: KafkaSettings, topics: TopicSettings, group: str) -> None:
        """Raises ConfigurationError if librdkafka refuses a setting."""
        self._kafka = kafka
        self._client = open_client(AdminClient, client_config(kafka))
        self._start = retry_topic(topics, "")
        self._group = group
        self._doing = f"looking at the topics {self._start}*"

    def read(self) -> dict[str, int]:
        """How many records wait for each cluster that has a retry topic, in the registry or not. Blocks.

        Raises:
            KafkaError: the brokers cannot or will not answer.
        """
        with mapped(self._doing):
            known = self._client.list_topics(timeout=REQUEST_TIMEOUT).topics
            places = {
                name.removeprefix(self._start): [TopicPartition(name, number) for number in found.partitions]
                for name, found in sorted(known.items())
                if name.startswith(self._start)
            }
            everywhere = [place for each in places.values() for place in each]
            first, end = (self._offsets(everywhere, spec) for spec in (OffsetSpec.earliest(), OffsetSpec.latest()))
        return {cluster: self._waiting(cluster, first, end, each) for cluster, each in places.items()}

    def _waiting(self, cluster: str, first: Offsets, end: Offsets, places: Sequence[TopicPartition]) -> int:
        filled = [place for place in places if end[_name(place)] > first[_name(place)]]
        if not filled:
            return 0
        done = committed(self._kafka, drain_group(self._group, cluster), filled, REQUEST_TIMEOUT)
        return sum(end[_name(place)] - max(first[_name(place)], done.get(_name(place), 0)) for place in filled)

    def _offsets(self, places: Sequence[TopicPartition], spec: OffsetSpec) -> Offsets:
        if not places:
            return {}
        answers = self._client.list_offsets(dict.fromkeys(places, spec), request_timeout=REQUEST_TIMEOUT)
        return {_name(place): answer.result().offset for place, answer in answers.items()}


def _name(place: TopicPartition) -> tuple[str, int]:
    return place.topic, place.partition
