"""The one place where the Kafka client's errors become ours: what may pass with time, and what never will."""
# ruff: noqa: SLF001 — the client spells librdkafka's own codes with a leading underscore

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import confluent_kafka
from confluent_kafka import KafkaError as Code

from eventstore.errors import KafkaError, PermanentKafkaError, TransientKafkaError

TRANSIENT: Final = frozenset({
    # the way to the brokers
    Code._TRANSPORT, Code._ALL_BROKERS_DOWN, Code._RESOLVE, Code._TIMED_OUT, Code._MSG_TIMED_OUT,
    Code._TIMED_OUT_QUEUE, Code._WAIT_COORD, Code._WAIT_CACHE, Code._DESTROY_BROKER, Code._ISR_INSUFF, Code._INTR,
    Code._RETRY, Code._IN_PROGRESS, Code._PREV_IN_PROGRESS, Code._OUTDATED, Code._QUEUE_FULL, Code._PURGE_QUEUE,
    Code._PURGE_INFLIGHT, Code.NETWORK_EXCEPTION, Code.REQUEST_TIMED_OUT, Code.REBOOTSTRAP_REQUIRED,
    # brokers that move leaders and coordinators about
    Code.BROKER_NOT_AVAILABLE, Code.LEADER_NOT_AVAILABLE, Code.NOT_LEADER_FOR_PARTITION, Code.REPLICA_NOT_AVAILABLE,
    Code.NOT_ENOUGH_REPLICAS, Code.NOT_ENOUGH_REPLICAS_AFTER_APPEND, Code.NOT_CONTROLLER, Code.NOT_COORDINATOR,
    Code.COORDINATOR_NOT_AVAILABLE, Code.COORDINATOR_LOAD_IN_PROGRESS, Code.PREFERRED_LEADER_NOT_AVAILABLE,
    Code.ELIGIBLE_LEADERS_NOT_AVAILABLE, Code.LISTENER_NOT_FOUND, Code.FENCED_LEADER_EPOCH, Code.UNKNOWN_LEADER_EPOCH,
    Code.STALE_CTRL_EPOCH, Code.STALE_BROKER_EPOCH, Code.OFFSET_NOT_AVAILABLE, Code.UNSTABLE_OFFSET_COMMIT,
    Code.REASSIGNMENT_IN_PROGRESS, Code.KAFKA_STORAGE_ERROR, Code.THROTTLING_QUOTA_EXCEEDED,
    Code.CONCURRENT_TRANSACTIONS, Code.FETCH_SESSION_ID_NOT_FOUND, Code.INVALID_FETCH_SESSION_EPOCH,
    # a consumer group on the move
    Code.REBALANCE_IN_PROGRESS, Code.ILLEGAL_GENERATION, Code.UNKNOWN_MEMBER_ID, Code.MEMBER_ID_REQUIRED,
    Code.STALE_MEMBER_EPOCH, Code.FENCED_MEMBER_EPOCH, Code.UNRELEASED_INSTANCE_ID, Code._ASSIGNMENT_LOST,
    Code._MAX_POLL_EXCEEDED,
})  # fmt: skip
"""Codes after which the same call may succeed. All others are permanent: on the unexpected we stop, not guess."""

_MENDS: Final = {
    Code.UNKNOWN_TOPIC_OR_PART: "run `eventstore topics apply`",
    Code._UNKNOWN_TOPIC: "run `eventstore topics apply`",
    Code._UNKNOWN_PARTITION: "see `eventstore topics list` for the partitions there are",
    Code.TOPIC_AUTHORIZATION_FAILED: "grant our user access to the topic",
    Code.GROUP_AUTHORIZATION_FAILED: "grant our user access to the consumer group",
    Code.CLUSTER_AUTHORIZATION_FAILED: "grant our user this operation on the cluster",
    Code._AUTHENTICATION: "check `kafka.sasl_*` in `eventstore settings`",
    Code.SASL_AUTHENTICATION_FAILED: "check `kafka.sasl_*` in `eventstore settings`",
    Code._SSL: "check `kafka.ssl_*` and `kafka.security_protocol` in `eventstore settings`",
    Code._RESOLVE: "check `kafka.bootstrap_servers` in `eventstore settings`",
    Code.MSG_SIZE_TOO_LARGE: "raise the topic's max.message.bytes",
    Code.INVALID_REPLICATION_FACTOR: "lower `topics.replication` or add brokers",
}


def kafka_error(error: Any, doing: str) -> KafkaError:
    """Our error for the client's `KafkaError`, or for the `KafkaException` around it; `doing` starts the message."""
    code = error.args[0] if isinstance(error, confluent_kafka.KafkaException) else error
    transient = code.code() in TRANSIENT and not code.fatal()
    default = "check that the brokers are up, then try again" if transient else "see the brokers' log"
    message = f"{doing}: {' '.join(code.str().split())} ({code.name()}); {_MENDS.get(code.code(), default)}"
    return TransientKafkaError(message) if transient else PermanentKafkaError(message)


@contextmanager
def mapped(doing: str) -> Iterator[None]:
    """Within it, what the Kafka client raises is raised as ours.

    Raises:
        TransientKafkaError, PermanentKafkaError: instead of confluent_kafka.KafkaException.
    """
    try:
        yield
    except confluent_kafka.KafkaException as error:
        raise kafka_error(error, doing) from error
