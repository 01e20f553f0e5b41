"""What our topics should be, what they are, and which steps lead from one to the other without losing anything."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from eventstore.config import TopicSettings

HOUR_MS: Final = 3_600_000
MAX_MESSAGE_BYTES: Final = 2**20
"""One batch of a producer, which is what Kafka's limit measures: many events of at most 32 KiB."""
ANNOTATED_BYTES: Final = 2 * MAX_MESSAGE_BYTES
"""Whatever the event topic took must fit here too, with the headers that say why it was rejected or where it stood."""

_COMPACTED: Final = {
    "cleanup.policy": "compact",
    # a table is read from its beginning by whoever starts: old values go soon
    "segment.ms": str(24 * HOUR_MS),
    "min.cleanable.dirty.ratio": "0.1",
}

_GROWING: Final = frozenset({"retention.ms", "max.message.bytes", "min.insync.replicas"})
"""Configs in which more is safer: raised by `apply`, never lowered. (-1 retains for ever.)"""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as wanted, or as found."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]
    records: int = 0
    """Offsets between its start and its end: an upper bound of the records it holds."""


class Action(StrEnum):
    CREATE = "create"
    RAISE = "raise"
    KEEP = "keep"
    """It differs in the direction that loses nothing, or only an operator can say what is right: left as it is."""
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Step:
    """One difference and what `apply` does about it."""

    topic: str
    setting: str
    wanted: str
    found: str
    action: Action
    why: str = ""


def wanted_topics(settings: TopicSettings, clusters: Collection[str] = ()) -> tuple[Topic, ...]:
    """The event topic, the dead-letter topic, a retry topic for each of these clusters, and the tables."""
    return (
        _stream(settings, settings.events, settings.retention_hours, MAX_MESSAGE_BYTES),
        _stream(settings, settings.dead_letters, settings.dead_letters_retention_hours, ANNOTATED_BYTES),
        *retry_topics(settings, clusters),
        *table_topics(settings),
    )


def retry_topics(settings: TopicSettings, clusters: Collection[str]) -> tuple[Topic, ...]:
    """Where the records of a cluster wait while its circuit is open."""
    # an acknowledged record stands nowhere else once the event topic has let go of it
    hours = max(settings.retention_hours, settings.dead_letters_retention_hours)
    return tuple(_stream(settings, retry_topic(settings, name), hours, ANNOTATED_BYTES) for name in sorted(clusters))


def retry_topic(settings: TopicSettings, cluster: str) -> str:
    return f"{settings.retry_prefix}.{cluster}"


def table_topics(settings: TopicSettings) -> tuple[Topic, ...]:
    """Compacted topics of one partition: small tables that outlive every machine but Kafka's."""
    names = (settings.control, settings.erasures, settings.marks, settings.replays)
    return tuple(Topic(name, 1, settings.replication, _common(settings) | _COMPACTED) for name in names)


def _stream(settings: TopicSettings, name: str, retention_hours: int, max_bytes: int) -> Topic:
    kept = {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_hours * HOUR_MS),
        "max.message.bytes": str(max_bytes),
        # brokers store batches as the producers compressed them
        "compression.type": "producer",
    }
    return Topic(name, settings.partitions, settings.replication, _common(settings) | kept)


def _common(settings: TopicSettings) -> dict[str, str]:
    return {
        # one replica may be down and every acknowledged record still has two
        "min.insync.replicas": str(max(1, settings.replication - 1)),
        # arrival decides about retention and replays: a producer's wrong clock cannot age a record out
        "message.timestamp.type": "LogAppendTime",
    }


def plan(wanted: Iterable[Topic], found: Mapping[str, Topic]) -> list[Step]:
    """Every difference, topic by topic; nothing if all is as wanted."""
    steps: list[Step] = []
    for topic in wanted:
        if (there := found.get(topic.name)) is None:
            shape = f"{topic.partitions} partitions, {topic.replication} replicas"
            steps.append(Step(topic.name, "topic", shape, "none", Action.CREATE))
        else:
            steps += [*_partitions(topic, there), *_replication(topic, there), *_config(topic, there)]
    return steps


def _partitions(wanted: Topic, found: Topic) -> list[Step]:
    if wanted.partitions == found.partitions:
        return []
    action, why = Action.RAISE, ""
    if wanted.partitions < found.partitions:
        action, why = Action.KEEP, "partitions are never taken away"
    elif found.records:
        action = Action.REFUSE
        why = (
            f"it holds up to {found.records} records: users would move to other partitions, and their new events may "
            "overtake older ones still waiting (rows stay the same); drain the consumers first, then use --force"
        )
    return [Step(wanted.name, "partitions", str(wanted.partitions), str(found.partitions), action, why)]


def _replication(wanted: Topic, found: Topic) -> list[Step]:
    if wanted.replication == found.replication:
        return []
    why = "replicas are moved with Kafka's own kafka-reassign-partitions"
    return [Step(wanted.name, "replication", str(wanted.replication), str(found.replication), Action.KEEP, why)]


def _config(wanted: Topic, found: Topic) -> list[Step]:
    steps = []
    for name, value in wanted.config.items():
        there = found.config.get(name, "")
        if there == value:
            continue
        if name in _GROWING:
            grows = _size(there) < _size(value)
            action, why = (Action.RAISE, "") if grows else (Action.KEEP, "never lowered")
            if grows and name == "min.insync.replicas" and int(value) > found.replication:
                action, why = Action.KEEP, f"the topic has only {found.replication} replicas"
        else:
            action, why = Action.KEEP, "changes what is kept or how: set it with kafka-configs if it was not meant"
        steps.append(Step(wanted.name, name, value, there or "unset", action, why))
    return steps


def _size(value: str) -> float:
    number = float(value or 0)
    return float("inf") if number < 0 else number
