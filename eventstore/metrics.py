"""Every metric, by name and unit. Counters only grow; labels have few values (never a user, never a message id)."""

from prometheus_client import Counter, Gauge, Histogram

REGISTRY_RELOADS = Counter("eventstore_registry_reloads_total", "Registry documents put in force after the first.")
REGISTRY_RELOAD_FAILURES = Counter(
    "eventstore_registry_reload_failures_total", "Registry edits refused; the previous document stayed in force."
)
CONSUMED = Counter("eventstore_consumed_total", "Records done with: stored, expired or dead-lettered.")
STORED = Counter("eventstore_stored_total", "Rows acknowledged by a cluster.", ["cluster"])
REJECTED = Counter("eventstore_rejected_total", "Records confirmed in the dead-letter topic.", ["reason"])
BATCHES = Counter(
    "eventstore_batches_total", "Single-partition batches made of those rows, attempts again not counted.", ["cluster"]
)
EXPIRED = Counter("eventstore_expired_total", "Records older than their retention on arrival.", ["tier"])
RETRIED = Counter("eventstore_retried_total", "Batches written again after a transient failure.", ["cluster"])
COMMITS = Counter("eventstore_commits_total", "Partitions whose offset Kafka acknowledged.")
COMMIT_FAILURES = Counter(
    "eventstore_commit_failures_total", "Offset commits refused; tried again at the next interval."
)
IN_FLIGHT_RECORDS = Gauge("eventstore_in_flight_records", "Records taken from Kafka and not yet finished.")
IN_FLIGHT_BYTES = Gauge("eventstore_in_flight_bytes", "Bytes taken from Kafka and not yet finished.")
WRITE_SECONDS = Histogram(
    "eventstore_write_seconds",
    "Sent to acknowledged, of the slowest batch of each read from the network.",
    ["cluster"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
