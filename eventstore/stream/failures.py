"""The one place where the Kafka client's errors become ours: what may pass with time, and what never will."""
# ruff: noqa: SLF001 — the client spells librdkafka's own codes with a leading underscore

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import confluent_kafka
from confluent_kafka import KafkaError as Code

from eventstore.errors import KafkaError, PermanentKafkaError, TransientKafkaError

Answer = TypeVar("Answer")

RETRY_SECONDS: Final = 0.05
"""Pause before a question is asked again."""

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
"""Codes after which the same call may succeed."""

PERMANENT: Final = frozenset({
    # who we are, and what we may do
    Code._AUTHENTICATION, Code._SSL, Code.SASL_AUTHENTICATION_FAILED, Code.ILLEGAL_SASL_STATE,
    Code.UNSUPPORTED_SASL_MECHANISM, Code.UNACCEPTABLE_CREDENTIAL, Code.SECURITY_DISABLED, Code.INVALID_PRINCIPAL_TYPE,
    Code.PRINCIPAL_DESERIALIZATION_FAILURE, Code.TOPIC_AUTHORIZATION_FAILED, Code.GROUP_AUTHORIZATION_FAILED,
    Code.CLUSTER_AUTHORIZATION_FAILED, Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    Code.DELEGATION_TOKEN_AUTHORIZATION_FAILED, Code.DELEGATION_TOKEN_AUTH_DISABLED, Code.DELEGATION_TOKEN_EXPIRED,
    Code.DELEGATION_TOKEN_NOT_FOUND, Code.DELEGATION_TOKEN_OWNER_MISMATCH, Code.DELEGATION_TOKEN_REQUEST_NOT_ALLOWED,
    # topics, groups and settings that are not as we need them: a person mends them
    Code.UNKNOWN_TOPIC_OR_PART, Code._UNKNOWN_TOPIC, Code._UNKNOWN_PARTITION, Code.UNKNOWN_TOPIC_ID,
    Code.INCONSISTENT_TOPIC_ID, Code.TOPIC_EXCEPTION, Code.TOPIC_ALREADY_EXISTS, Code.TOPIC_DELETION_DISABLED,
    Code.INVALID_PARTITIONS, Code.INVALID_REPLICATION_FACTOR, Code.INVALID_REPLICA_ASSIGNMENT, Code.INVALID_CONFIG,
    Code.POLICY_VIOLATION, Code.INVALID_REQUIRED_ACKS, Code.INVALID_TIMESTAMP, Code.UNSUPPORTED_COMPRESSION_TYPE,
    Code.UNSUPPORTED_FOR_MESSAGE_FORMAT, Code.UNSUPPORTED_VERSION, Code.LOG_DIR_NOT_FOUND,
    Code.NO_REASSIGNMENT_IN_PROGRESS, Code.ELECTION_NOT_NEEDED, Code.RESOURCE_NOT_FOUND, Code.DUPLICATE_RESOURCE,
    Code.GROUP_ID_NOT_FOUND, Code._UNKNOWN_GROUP, Code.INVALID_GROUP_ID, Code.GROUP_MAX_SIZE_REACHED,
    Code.GROUP_SUBSCRIBED_TO_TOPIC, Code.NON_EMPTY_GROUP, Code.INCONSISTENT_GROUP_PROTOCOL,
    Code.INVALID_SESSION_TIMEOUT, Code.INVALID_COMMIT_OFFSET_SIZE, Code.OFFSET_METADATA_TOO_LARGE,
    Code.UNSUPPORTED_ASSIGNOR, Code.INVALID_REGULAR_EXPRESSION,
    # records and offsets that must not be skipped or repeated without a person's word
    Code.OFFSET_OUT_OF_RANGE, Code._AUTO_OFFSET_RESET, Code._NO_OFFSET, Code._LOG_TRUNCATION, Code.INVALID_MSG,
    Code.INVALID_MSG_SIZE, Code.INVALID_RECORD, Code._BAD_MSG, Code._BAD_COMPRESSION, Code._UNDERFLOW, Code._PARTIAL,
    Code.MSG_SIZE_TOO_LARGE, Code.RECORD_LIST_TOO_LARGE, Code._KEY_SERIALIZATION, Code._VALUE_SERIALIZATION,
    Code._KEY_DESERIALIZATION, Code._VALUE_DESERIALIZATION,
    # another process has our name, or the producer has lost count of what it sent
    Code.FENCED_INSTANCE_ID, Code._FENCED, Code.PRODUCER_FENCED, Code.INVALID_PRODUCER_EPOCH,
    Code.INVALID_PRODUCER_ID_MAPPING, Code.UNKNOWN_PRODUCER_ID, Code.OUT_OF_ORDER_SEQUENCE_NUMBER,
    Code.DUPLICATE_SEQUENCE_NUMBER, Code._GAPLESS_GUARANTEE, Code._INCONSISTENT, Code._FATAL,
    # faults of the program, the machine or the broker
    Code.UNKNOWN, Code.INVALID_REQUEST, Code.OPERATION_NOT_ATTEMPTED, Code._FAIL, Code._APPLICATION,
    Code._CRIT_SYS_RESOURCE, Code._FS, Code._INVALID_ARG, Code._INVALID_TYPE, Code._INVALID_DIFFERENT_RECORD,
    Code._STATE, Code._CONFLICT, Code._DESTROY, Code._EXISTING_SUBSCRIPTION, Code._NOENT, Code._NOT_CONFIGURED,
    Code._NOT_IMPLEMENTED, Code._READ_ONLY, Code._UNKNOWN_BROKER, Code._UNKNOWN_PROTOCOL, Code._UNSUPPORTED_FEATURE,
    # news and no failures: whoever gets one as an error has not asked for it
    Code.NO_ERROR, Code._NOOP, Code._NODE_UPDATE, Code._PARTITION_EOF, Code._ASSIGN_PARTITIONS, Code._REVOKE_PARTITIONS,
    # parts of Kafka that Eventstore does not use: transactions, share groups, Kafka Streams, quorum voters, telemetry
    Code.INVALID_TRANSACTION_TIMEOUT, Code.INVALID_TXN_STATE, Code.TRANSACTION_ABORTABLE,
    Code.TRANSACTION_COORDINATOR_FENCED, Code.FENCED_STATE_EPOCH, Code.INVALID_RECORD_STATE,
    Code.INVALID_SHARE_SESSION_EPOCH, Code.SHARE_SESSION_NOT_FOUND, Code.SHARE_SESSION_LIMIT_REACHED,
    Code.STREAMS_INVALID_TOPOLOGY, Code.STREAMS_INVALID_TOPOLOGY_EPOCH, Code.STREAMS_TOPOLOGY_FENCED,
    Code.DUPLICATE_VOTER, Code.VOTER_NOT_FOUND, Code.INCONSISTENT_VOTER_SET, Code.INVALID_VOTER_KEY,
    Code.INVALID_REGISTRATION, Code.UNKNOWN_CONTROLLER_ID, Code.FEATURE_UPDATE_FAILED, Code.INVALID_UPDATE_VERSION,
    Code.MISMATCHED_ENDPOINT_TYPE, Code.UNSUPPORTED_ENDPOINT_TYPE, Code.TELEMETRY_TOO_LARGE,
    Code.UNKNOWN_SUBSCRIPTION_ID,
})  # fmt: skip
"""Codes after which it will not. A code in neither set counts as one of these: on the unexpected we stop, not guess."""

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


def ask_until_answered(ask: Callable[[], Answer], seconds: float) -> Answer:
    """What `ask` gives; asked again while it fails in a way that may pass, as it does while leaders and coordinators move.

    Raises:
        KafkaError: what `ask` raised last, when it will never pass or the time is up.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except TransientKafkaError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)
