"""Where the partitions of a group member stand in Kafka. Blocking calls: made on the thread that owns the client."""

from collections.abc import Iterable, Sequence
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, TopicPartition

from eventstore.errors import PermanentKafkaError
from eventstore.stream.assignment import Place
from eventstore.stream.failures import ask_until_answered, kafka_error, mapped

KAFKA_SECONDS: Final = 10.0
"""Longest wait for a broker's answer."""
ENDS_SECONDS: Final = 2.0
"""Longest wait for an answer that can be asked for again."""
DOING: Final = "consuming"


def refuse_unknown(consumer: Consumer, topics: Sequence[str]) -> None:
    """Look whether the topics exist.

    Raises:
        PermanentKafkaError: a topic does not exist.
        TransientKafkaError: no broker answers.
    """
    with mapped(DOING):
        known = consumer.list_topics(timeout=KAFKA_SECONDS).topics
    if missing := [t for t in topics if t not in known]:
        raise PermanentKafkaError(
            f"topic {', '.join(missing)}: expected it to exist, found none; create it with `eventstore topics apply`"
        )


def committed(consumer: Consumer, places: Iterable[Place]) -> dict[Place, int]:
    """The group's committed offsets; places without one are left out.

    Raises:
        KafkaError: Kafka does not answer in time.
    """
    partitions = [TopicPartition(*place) for place in places]
    with mapped(DOING):
        answer: list[TopicPartition] = consumer.committed(partitions, timeout=KAFKA_SECONDS)
    if fault := next((p.error for p in answer if p.error is not None), None):
        raise kafka_error(fault, DOING)
    return {Place(p.topic, p.partition): p.offset for p in answer if p.offset >= 0}


def starts(consumer: Consumer, places: Iterable[Place]) -> dict[Place, int]:
    """Where reading starts: the committed offset, or the beginning where the group never committed.

    Asked for again while the coordinator moves: guessing an offset would lose records.

    Raises:
        KafkaError: Kafka does not answer in time.
    """
    asked = list(places)
    found = ask_until_answered(lambda: committed(consumer, asked), KAFKA_SECONDS)
    return {place: found.get(place, OFFSET_BEGINNING) for place in asked}


def out_of_range(consumer: Consumer, place: Place) -> PermanentKafkaError:
    """The log no longer holds the offset that must be read next: skipping is loss, so the operator decides."""
    with mapped(DOING):
        first, end = consumer.get_watermark_offsets(TopicPartition(*place), timeout=KAFKA_SECONDS)
        (at,) = consumer.committed([TopicPartition(*place)], timeout=KAFKA_SECONDS)
    return PermanentKafkaError(
        f"{place}: expected to go on at the committed offset {at.offset}, but the topic holds only offsets {first} to "
        f"{end - 1}; records in between are gone from Kafka. Restore them from a backup, or accept the gap by moving the "
        f"group's offset to {first} (kafka-consumer-groups --reset-offsets) and start again"
    )


def ends(consumer: Consumer, places: Iterable[Place]) -> dict[Place, int] | None:
    """Where the logs end now; None if the brokers do not say so soon."""
    asked = [TopicPartition(*place, OFFSET_END) for place in places]
    try:
        found: list[TopicPartition] = consumer.offsets_for_times(asked, timeout=ENDS_SECONDS)
    except KafkaException:
        return None
    if any(place.error is not None for place in found):
        return None
    return {Place(place.topic, place.partition): place.offset for place in found}
