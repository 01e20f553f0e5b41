from collections.abc import Iterator

import pytest

from eventstore.config import KafkaSettings, Settings
from eventstore.errors import RefusedError, TransientKafkaError
from eventstore.stream import admin
from eventstore.stream.admin import TopicAdmin
from eventstore.stream.producer import RecordProducer
from eventstore.stream.topics import Action, plan, wanted_topics
from tests.own_topics import OwnTopics, own_topics
from tests.stacks import RunningStack
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def topics(stack: RunningStack) -> Iterator[OwnTopics]:
    with own_topics(stack) as made:
        yield made


def publish(settings: Settings) -> None:
    producer = RecordProducer(settings.kafka, settings.producer, settings.topics.events)
    producer.publish(b"shop:u1", b"{}")
    producer.confirm()


def test_created_topics_are_as_wanted_and_need_nothing_more(topics: OwnTopics) -> None:
    wanted = wanted_topics(topics.settings.topics)
    found = topics.admin().topics(topic.name for topic in wanted)
    for topic in wanted:
        assert found[topic.name].partitions == topic.partitions
        assert topic.config.items() <= dict(found[topic.name].config).items()
    assert topics.admin().apply(wanted) == []


def test_a_topic_with_records_gets_more_partitions_only_by_force(topics: OwnTopics) -> None:
    publish(topics.settings)
    more = wanted_topics(topics.with_topics(partitions=5, retention_hours=500).topics)

    with pytest.raises(RefusedError, match="nothing was changed"):
        topics.admin().apply(more)
    untouched = topics.admin().topics([topics.events, topics.dead_letters])
    assert {topic.partitions for topic in untouched.values()} == {3}

    topics.admin().apply(more, force=True)
    until(lambda: topics.admin().plan(more) == [], "the brokers to show the new shape")


def test_limits_are_raised_and_never_lowered(topics: OwnTopics) -> None:
    longer = wanted_topics(topics.with_topics(retention_hours=1_000).topics)
    shorter = wanted_topics(topics.with_topics(retention_hours=1, partitions=1).topics)

    assert [step.action for step in topics.admin().apply(longer)] == [Action.RAISE]
    until(lambda: topics.admin().plan(longer) == [], "the brokers to show the new retention")
    assert {step.action for step in topics.admin().apply(shorter)} == {Action.KEEP}
    assert topics.admin().plan(longer) == []


def test_a_list_counts_records(topics: OwnTopics) -> None:
    publish(topics.settings)
    found = topics.admin().topics()
    assert found[topics.events].records == 1
    assert not any(name.startswith("__") for name in found)


def test_a_topic_that_somebody_else_creates_meanwhile_is_fine(topics: OwnTopics) -> None:
    wanted = wanted_topics(topics.settings.topics)
    created_meanwhile = plan(wanted, {})[0]
    topics.admin()._take(created_meanwhile, wanted[0])
    assert topics.admin().plan(wanted) == []


def test_brokers_that_are_gone_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "REQUEST_TIMEOUT", 0.2)
    with pytest.raises(TransientKafkaError, match=r"127\.0\.0\.1:1: .*check that the brokers are up"):
        TopicAdmin(KafkaSettings(bootstrap_servers="127.0.0.1:1")).topics()
