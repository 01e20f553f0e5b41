"""Every metric, by name and unit. Counters only grow; labels have few values (never a user, never a message id)."""

from prometheus_client import Counter, Gauge

REGISTRY_RELOADS = Counter("eventstore_registry_reloads_total", "Registry documents put in force after the first.")
REGISTRY_RELOAD_FAILURES = Counter(
    "eventstore_registry_reload_failures_total", "Registry edits refused; the previous document stayed in force."
)
CONSUMED = Counter("eventstore_consumed_total", "Records taken from Kafka.")
STORED = Counter("eventstore_stored_total", "Rows acknowledged by a cluster.", ["cluster"])
REJECTED = Counter("eventstore_rejected_total", "Records confirmed in the dead-letter topic.", ["reason"])
EXPIRED = Counter("eventstore_expired_total", "Records older than their retention on arrival.", ["tier"])
RETRIED = Counter("eventstore_retried_total", "Batches written again after a transient failure.", ["cluster"])
COMMITS = Counter("eventstore_commits_total", "Offset commits acknowledged by Kafka.")
COMMIT_FAILURES = Counter(
    "eventstore_commit_failures_total", "Offset commits refused; tried again at the next interval."
)
IN_FLIGHT_RECORDS = Gauge("eventstore_in_flight_records", "Records taken from Kafka and not yet finished.")
IN_FLIGHT_BYTES = Gauge("eventstore_in_flight_bytes", "Bytes taken from Kafka and not yet finished.")
