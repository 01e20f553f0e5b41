"""How a worker joins its consumer group."""

from typing import Any, Final

from eventstore.config import GroupProtocol, KafkaSettings, WorkerSettings
from eventstore.stream.client import client_config
from eventstore.stream.consumer import ConsumerPolicy

PARTITION_FETCH_BYTES: Final = 256 * 1024
"""Most that a broker answers of one partition, compressed, unless one batch is larger: a fetch of all partitions is unpacked
as it arrives, whatever the queue's bound, and 1 MiB of each (the default) is 40 MB of 1 KB events."""
PARTITION_SHARE: Final = 1 / 8
"""Of a small queue, the same."""
HEARTBEATS_PER_SESSION: Final = 5
"""Four may get lost before the group takes a live member for dead."""


def group_config(kafka: KafkaSettings, worker: WorkerSettings) -> dict[str, Any]:
    """The properties of a group member, by librdkafka's names."""
    config: dict[str, Any] = {
        "group.id": worker.group,
        "group.protocol": worker.group_protocol.value,
        # librdkafka's default of 1000 ms idles a consumer whose prefetch queue was full for a moment
        "fetch.queue.backoff.ms": 20,
        "queued.max.messages.kbytes": max(1, worker.fetch_queue_bytes // 1024),
        "max.partition.fetch.bytes": min(PARTITION_FETCH_BYTES, int(worker.fetch_queue_bytes * PARTITION_SHARE)),
        "queued.min.messages": 10 * worker.chunk_records,
    }
    if worker.group_protocol is GroupProtocol.CLASSIC:  # under KIP-848 the broker sets these
        session_ms = int(worker.session_timeout * 1000)
        config |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": max(1, session_ms // HEARTBEATS_PER_SESSION),
        }
    if worker.instance_id is not None:
        config["group.instance.id"] = worker.instance_id
    return client_config(kafka) | config | kafka.options


def consumer_policy(worker: WorkerSettings) -> ConsumerPolicy:
    return ConsumerPolicy(
        chunk_records=worker.chunk_records,
        in_flight_records=worker.in_flight_records,
        in_flight_bytes=worker.in_flight_bytes,
        commit_seconds=worker.commit_interval,
        drain_seconds=worker.drain_timeout,
    )
