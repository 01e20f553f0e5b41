"""Topics on the brokers: look, create, raise."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from eventstore.config import KafkaSettings
from eventstore.errors import KafkaError as OurKafkaError
from eventstore.errors import RefusedError, TransientKafkaError
from eventstore.stream.client import client_config, open_client
from eventstore.stream.failures import ask_until_answered, mapped
from eventstore.stream.topics import Action, Step, Topic, plan

REQUEST_TIMEOUT: Final = 15.0
"""Seconds until a request to the brokers is given up."""


SETTLE_PAUSE: Final = 0.05
"""Seconds between two looks at a topic that is being created."""


class TopicAdmin:
    """Every method raises TransientKafkaError or PermanentKafkaError when the brokers cannot or will not answer."""

    def __init__(self, kafka: KafkaSettings) -> None:
        """Raises ConfigurationError if librdkafka refuses a setting."""
        self._servers = kafka.bootstrap_servers
        self._client = open_client(AdminClient, client_config(kafka))

    def topics(self, names: Iterable[str] | None = None) -> dict[str, Topic]:
        """The topics of these names that exist; all but Kafka's internal ones if no names are given.

        Asked for again while partitions change their leader, as new ones do.
        """
        asked = None if names is None else set(names)
        return ask_until_answered(lambda: self._look(asked), REQUEST_TIMEOUT)

    def _look(self, names: set[str] | None) -> dict[str, Topic]:
        with mapped(f"topics on {self._servers}"):
            metadata = self._client.list_topics(timeout=REQUEST_TIMEOUT).topics
            wanted = names if names is not None else {name for name in metadata if not name.startswith("__")}
            present = {name: metadata[name] for name in sorted(wanted & metadata.keys())}
            configs = self._configs(present)
            records = self._records(present)
        return {
            name: Topic(
                name,
                len(found.partitions),
                max((len(partition.replicas) for partition in found.partitions.values()), default=0),
                configs[name],
                records[name],
            )
            for name, found in present.items()
        }

    def _configs(self, names: Iterable[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        if not resources:
            return {}
        answers = self._client.describe_configs(resources, request_timeout=REQUEST_TIMEOUT)
        return {
            resource.name: {name: entry.value or "" for name, entry in answer.result().items()}
            for resource, answer in answers.items()
        }

    def _records(self, present: dict[str, Any]) -> dict[str, int]:
        partitions = [TopicPartition(name, number) for name, found in present.items() for number in found.partitions]
        counts = dict.fromkeys(present, 0)
        if partitions:
            for end, sign in ((OffsetSpec.latest(), 1), (OffsetSpec.earliest(), -1)):
                answers = self._client.list_offsets(dict.fromkeys(partitions, end), request_timeout=REQUEST_TIMEOUT)
                for partition, answer in answers.items():
                    counts[partition.topic] += sign * answer.result().offset
        return counts

    def plan(self, wanted: Sequence[Topic]) -> list[Step]:
        return plan(wanted, self.topics(topic.name for topic in wanted))

    def apply(self, wanted: Sequence[Topic], *, force: bool = False) -> list[Step]:
        """Create what is missing and raise what is too low; gives the steps as they were planned.

        Raises:
            RefusedError: a topic that holds records would get more partitions, and `force` was not given.
        """
        steps = self.plan(wanted)
        refused = [step for step in steps if step.action is Action.REFUSE]
        if refused and not force:
            shown = "; ".join(f"{s.topic}: expected {s.wanted} {s.setting}, found {s.found}: {s.why}" for s in refused)
            raise RefusedError(f"topics: nothing was changed: {shown}")
        by_name = {topic.name: topic for topic in wanted}
        for step in steps:
            if step.action is not Action.KEEP:
                with mapped(f"topic {step.topic}: {step.setting} to {step.wanted}"):
                    self._take(step, by_name[step.topic])
        self._await_usable({step.topic for step in steps if step.action is Action.CREATE})
        return steps

    def have(self, wanted: Sequence[Topic]) -> None:
        """Create those that are missing; the others stay as they are."""
        there = self.topics(topic.name for topic in wanted)
        self.apply([topic for topic in wanted if topic.name not in there])

    def _await_usable(self, names: Iterable[str]) -> None:
        """Brokers answer before the partitions they create have leaders that know of it."""
        missing = set(names)
        deadline = time.monotonic() + REQUEST_TIMEOUT
        while missing:
            try:
                missing -= self._look(missing).keys()
            except OurKafkaError:  # "unknown topic", too, says a broker that has not heard of it yet
                if time.monotonic() > deadline:
                    raise
            if missing and time.monotonic() > deadline:
                raise TransientKafkaError(
                    f"topics {', '.join(sorted(missing))}: created, but not shown by the brokers within "
                    f"{REQUEST_TIMEOUT:.0f} s; see `eventstore topics list`"
                )
            if missing:
                time.sleep(SETTLE_PAUSE)

    def _take(self, step: Step, topic: Topic) -> None:
        if step.action is Action.CREATE:
            new = NewTopic(topic.name, topic.partitions, topic.replication, config=dict(topic.config))
            answers = self._client.create_topics([new], request_timeout=REQUEST_TIMEOUT)
        elif step.setting == "partitions":
            more = NewPartitions(topic.name, topic.partitions)
            answers = self._client.create_partitions([more], request_timeout=REQUEST_TIMEOUT)
        else:
            entry = ConfigEntry(step.setting, step.wanted, incremental_operation=AlterConfigOpType.SET)
            resource = ConfigResource(ResourceType.TOPIC, topic.name, incremental_configs=[entry])
            answers = self._client.incremental_alter_configs([resource], request_timeout=REQUEST_TIMEOUT)
        for answer in answers.values():
            try:
                answer.result()
            except KafkaException as error:  # somebody else applied at the same time
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise

    def delete(self, names: Iterable[str]) -> None:
        """Delete topics and all that is in them."""
        doomed = list(names)
        if not doomed:  # the client takes it for a mistake
            return
        with mapped(f"deleting topics on {self._servers}"):
            for answer in self._client.delete_topics(doomed, request_timeout=REQUEST_TIMEOUT).values():
                answer.result()
