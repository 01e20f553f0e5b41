from dataclasses import replace

import pytest

from eventstore.config import TopicSettings
from eventstore.events.decode import MAX_EVENT_BYTES
from eventstore.stream.topics import Action, Step, Topic, plan, wanted_topics

pytestmark = pytest.mark.unit

SETTINGS = TopicSettings(partitions=8, replication=3, retention_hours=168, dead_letters_retention_hours=720)
WANTED, DEAD_LETTERS, RETRY, *TABLES = wanted_topics(SETTINGS, ["c30"])


def step(found: Topic) -> Step:
    steps = plan([WANTED], {WANTED.name: found})
    assert len(steps) == 1, steps
    return steps[0]


def with_config(name: str, value: str) -> Topic:
    return replace(WANTED, config={**WANTED.config, name: value})


def test_a_missing_topic_is_created() -> None:
    assert [(s.topic, s.action) for s in plan([WANTED, DEAD_LETTERS], {})] == [
        ("events", Action.CREATE),
        ("events.dlq", Action.CREATE),
    ]


def test_a_topic_as_wanted_needs_nothing() -> None:
    assert plan([WANTED], {WANTED.name: WANTED}) == []


def test_one_of_three_replicas_may_be_down() -> None:
    assert WANTED.config["min.insync.replicas"] == "2"
    assert wanted_topics(TopicSettings(replication=1))[0].config["min.insync.replicas"] == "1"


def test_whatever_the_event_topic_took_fits_the_topics_that_add_headers_to_it() -> None:
    events, dead_letters, retry = (int(t.config["max.message.bytes"]) for t in (WANTED, DEAD_LETTERS, RETRY))
    assert MAX_EVENT_BYTES < events < dead_letters == retry


def test_every_cluster_has_a_retry_topic_that_keeps_records_no_shorter_than_the_event_topic() -> None:
    names = [topic.name for topic in wanted_topics(SETTINGS, {"c60", "c30"})]
    assert names[2:4] == ["events.retry.c30", "events.retry.c60"]
    assert RETRY.partitions == WANTED.partitions
    assert int(RETRY.config["retention.ms"]) >= int(WANTED.config["retention.ms"])


def test_tables_are_compacted_topics_of_one_partition() -> None:
    assert [table.name for table in TABLES] == ["events.control", "events.erasures", "events.marks", "events.replays"]
    assert {(table.partitions, table.replication, table.config["cleanup.policy"]) for table in TABLES} == {
        (1, 3, "compact")
    }


def test_an_empty_topic_gets_more_partitions() -> None:
    assert step(replace(WANTED, partitions=4)).action is Action.RAISE


def test_a_topic_with_records_gets_more_partitions_only_by_force() -> None:
    refused = step(replace(WANTED, partitions=4, records=10))
    assert refused.action is Action.REFUSE
    assert "10 records" in refused.why


def test_partitions_are_never_taken_away() -> None:
    assert step(replace(WANTED, partitions=16)).action is Action.KEEP


def test_replication_is_reported_and_left_alone() -> None:
    assert step(replace(WANTED, replication=1, config={**WANTED.config})).action is Action.KEEP


@pytest.mark.parametrize(
    ("name", "found", "action"),
    [
        ("retention.ms", "3600000", Action.RAISE),
        ("retention.ms", "999999999999", Action.KEEP),
        ("retention.ms", "-1", Action.KEEP),
        ("max.message.bytes", "1000", Action.RAISE),
        ("max.message.bytes", "99999999", Action.KEEP),
        ("min.insync.replicas", "1", Action.RAISE),
        ("min.insync.replicas", "3", Action.KEEP),
        ("cleanup.policy", "compact", Action.KEEP),
        ("message.timestamp.type", "CreateTime", Action.KEEP),
    ],
)
def test_limits_are_raised_and_never_lowered(name: str, found: str, action: Action) -> None:
    found_step = step(with_config(name, found))
    assert (found_step.setting, found_step.found, found_step.action) == (name, found, action)


def test_more_in_sync_replicas_than_replicas_would_stop_all_producers() -> None:
    found = replace(with_config("min.insync.replicas", "1"), replication=1)
    steps = {s.setting: s.action for s in plan([WANTED], {WANTED.name: found})}
    assert steps == {"replication": Action.KEEP, "min.insync.replicas": Action.KEEP}
