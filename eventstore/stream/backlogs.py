"""What waits in the retry topics: by cluster, how many records its drains have not committed."""

from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaError as Fault
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from eventstore.config import KafkaSettings, TopicSettings
from eventstore.errors import KafkaError, PermanentKafkaError, TransientKafkaError
from eventstore.stream.client import client_config, open_client
from eventstore.stream.committed import committed
from eventstore.stream.failures import kafka_error, mapped
from eventstore.stream.topics import retry_topic

REQUEST_TIMEOUT: Final = 15.0
"""Seconds until a request to the brokers is given up."""

Offsets = Mapping[tuple[str, int], int]
"""By topic and partition."""
Backlog = int | KafkaError
"""How many records wait; or why that is not known (transient), or why no drain could get at them (permanent)."""


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
        self._drained: dict[str, Offsets] = {}
        """Where the logs ended of each cluster of which nothing waited: until they grow, nobody need be asked again."""

    def read(self) -> dict[str, int]:
        """How many records wait for each cluster that has a retry topic, in the registry or not. Blocks.

        Raises:
            KafkaError: the brokers cannot or will not answer, or records are gone from a retry topic.
        """
        found = {}
        for cluster, backlog in self.look().items():
            if isinstance(backlog, KafkaError):
                raise backlog
            found[cluster] = backlog
        return found

    def look(self) -> dict[str, Backlog]:
        """The same, with what ails one retry topic told beside what waits in the others. Blocks.

        Raises:
            KafkaError: the brokers cannot or will not say which topics there are.
        """
        with mapped(self._doing):
            known = self._client.list_topics(timeout=REQUEST_TIMEOUT).topics
        places = {
            name.removeprefix(self._start): [TopicPartition(name, number) for number in found.partitions]
            for name, found in sorted(known.items())
            if name.startswith(self._start)
        }
        return {cluster: self._backlog(cluster, each) for cluster, each in places.items()}

    def _backlog(self, cluster: str, places: Sequence[TopicPartition]) -> Backlog:
        try:
            end = self._offsets(places, OffsetSpec.latest())
            if end == self._drained.get(cluster):
                return 0
            waiting = self._waiting(cluster, end)
        except KafkaError as error:
            return error
        if waiting == 0:
            self._drained[cluster] = end
        return waiting

    def _waiting(self, cluster: str, end: Offsets) -> int:
        used = [TopicPartition(*name) for name, offset in end.items() if offset > 0]
        group = drain_group(self._group, cluster)
        first = self._offsets(used, OffsetSpec.earliest())
        done = committed(self._kafka, group, used, REQUEST_TIMEOUT)
        for place, start in first.items():
            if done.get(place, start) < start:
                raise _gap(place, group, done[place], start)
        return sum(end[place] - done.get(place, start) for place, start in first.items())

    def _offsets(self, places: Sequence[TopicPartition], spec: OffsetSpec) -> Offsets:
        if not places:
            return {}
        try:
            answers = self._client.list_offsets(dict.fromkeys(places, spec), request_timeout=REQUEST_TIMEOUT)
            return {(place.topic, place.partition): answer.result().offset for place, answer in answers.items()}
        except KafkaException as error:
            raise listing_error(error, self._doing) from error


def listing_error(error: KafkaException, doing: str) -> KafkaError:
    """Ours for an error of a partition that the cluster's metadata name."""
    if error.args[0].code() == Fault.UNKNOWN_TOPIC_OR_PART:
        return TransientKafkaError(f"{doing}: a partition is being created or deleted, its leader does not know it yet")
    return kafka_error(error, doing)


def _gap(place: tuple[str, int], group: str, done: int, first: int) -> PermanentKafkaError:
    topic, partition = place
    return PermanentKafkaError(
        f"{topic}/{partition}: expected to go on at the committed offset {done}, but the topic begins at {first}: "
        f"{first - done} diverted records are gone from Kafka. Replay the events of that time if their topic still holds "
        f"them (`eventstore replay plan`), or restore them from a backup; then go on behind the gap: `kafka-consumer-groups "
        f"--bootstrap-server <broker> --group {group} --topic {topic}:{partition} --reset-offsets --to-earliest --execute`"
    )
