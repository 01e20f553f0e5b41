"""What waits in retry topics of a real Kafka, and what is told of one that has lost records."""

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from eventstore.errors import PermanentKafkaError
from eventstore.stream.backlogs import Backlogs, drain_group
from eventstore.stream.producer import RecordProducer
from eventstore.stream.topics import retry_topic
from tests.own_topics import OwnTopics, own_topics
from tests.stacks import RunningStack

pytestmark = pytest.mark.integration


def divert(topics: OwnTopics, cluster: str, count: int) -> None:
    settings = topics.settings
    producer = RecordProducer(settings.kafka, settings.producer, retry_topic(settings.topics, cluster))
    for number in range(count):
        producer.publish(b"shop:u%d" % number, b"{}")
    producer.confirm()


def commit(topics: OwnTopics, cluster: str, offset: int) -> None:
    """As the cluster's drain does."""
    group = drain_group(topics.events, cluster)
    consumer = Consumer(topics.kafka_config | {"group.id": group, "enable.auto.commit": False})
    place = TopicPartition(retry_topic(topics.settings.topics, cluster), 0, offset)
    consumer.commit(offsets=[place], asynchronous=False)
    consumer.close()


def expire(topics: OwnTopics, cluster: str, before: int) -> None:
    """As retention does."""
    place = TopicPartition(retry_topic(topics.settings.topics, cluster), 0, before)
    admin = AdminClient(topics.kafka_config)  # held: with it its answers would go
    for answer in admin.delete_records([place]).values():
        answer.result()


def test_what_waits_is_told_by_cluster_and_what_is_gone_ails_only_its_own(stack: RunningStack) -> None:
    with own_topics(stack, partitions=1, clusters=["c15", "c30", "never"]) as topics:
        found = Backlogs(topics.settings.kafka, topics.settings.topics, topics.events)
        divert(topics, "c15", 4)
        divert(topics, "c30", 10)
        commit(topics, "c15", 1)
        commit(topics, "c30", 2)
        assert found.read() == {"c15": 3, "c30": 8, "never": 0}

        expire(topics, "c30", 5)
        seen = found.look()
        gap = seen.pop("c30")
        assert seen == {"c15": 3, "never": 0}
        assert isinstance(gap, PermanentKafkaError)
        for told in ("committed offset 2", "begins at 5", "3 diverted records", drain_group(topics.events, "c30")):
            assert told in str(gap)
        with pytest.raises(PermanentKafkaError, match="begins at 5"):
            found.read()

        expire(topics, "c30", 10)  # nothing is left to drain: the loss is still told
        assert isinstance(found.look()["c30"], PermanentKafkaError)
        commit(topics, "c30", 10)
        assert found.read() == {"c15": 3, "c30": 0, "never": 0}


def test_where_nothing_waits_the_group_is_not_asked_again_until_more_is_diverted(stack: RunningStack) -> None:
    with own_topics(stack, partitions=1, clusters=["c30"]) as topics:
        found = Backlogs(topics.settings.kafka, topics.settings.topics, topics.events)
        divert(topics, "c30", 3)
        commit(topics, "c30", 3)
        assert found.read() == {"c30": 0}
        commit(topics, "c30", 1)
        assert found.read() == {"c30": 0}, "nobody has asked the group"
        divert(topics, "c30", 1)
        assert found.read() == {"c30": 3}
