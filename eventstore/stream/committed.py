"""Where a consumer group stands, asked without being a member of it.

librdkafka's admin client has a call for that, which ends the whole process (a null pointer in 2.4 to 2.16 at least) when the
answer is that the group's coordinator has moved: in every restart of a broker. A consumer that joins nothing asks the same
question and lives.
"""

from collections.abc import Sequence

from confluent_kafka import Consumer, TopicPartition

from eventstore.config import KafkaSettings
from eventstore.stream.client import client_config, open_client
from eventstore.stream.failures import kafka_error, mapped


def committed(
    kafka: KafkaSettings, group: str, places: Sequence[TopicPartition], timeout: float
) -> dict[tuple[str, int], int]:
    """Committed offsets by topic and partition; those where the group has committed nothing are left out. Blocks.

    Args:
        kafka: whom to ask.
        group: the group; one that nobody has heard of has committed nothing.
        places: the partitions.
        timeout: seconds.

    Raises:
        KafkaError: the brokers cannot or will not answer.
    """
    if not places:
        return {}
    doing = f"asking where group {group} stands"
    client = open_client(Consumer, client_config(kafka) | {"group.id": group, "enable.auto.commit": False})
    try:
        with mapped(doing):
            found = client.committed(list(places), timeout=timeout)
    finally:
        client.close()
    for place in found:
        if place.error is not None:
            raise kafka_error(place.error, doing)
    return {(place.topic, place.partition): place.offset for place in found if place.offset >= 0}
