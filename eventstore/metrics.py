"""Every metric, by name and unit. Counters only grow; labels have few values (never a user, never a message id).

docs/operations.md says what each means to an operator and which to alert on; a test holds that it names them all.
"""

from collections.abc import Mapping
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

# ------------------------------------------------------------------------------------------- what became of records

CONSUMED = Counter(
    "eventstore_consumed_total",
    "Records of the event topic done with: stored, expired, erased, dead-lettered or diverted.",
)
STORED = Counter("eventstore_stored_total", "Rows of all tables acknowledged by a cluster.", ["cluster"])
EXPIRED = Counter("eventstore_expired_total", "Records older than their retention on arrival.", ["tier"])
ERASED = Counter("eventstore_erased_total", "Records left out because their user has been erased since.")
REJECTED = Counter("eventstore_rejected_total", "Records confirmed in the dead-letter topic.", ["reason"])
DIVERTED = Counter("eventstore_diverted_total", "Records confirmed in their cluster's retry topic.", ["cluster"])
DRAINED = Counter("eventstore_drained_total", "Diverted records done with after all.", ["cluster"])
DRAIN_SUSPENDED = Gauge(
    "eventstore_drain_suspended", "1 while diverted records cannot be drained until a person mends it.", ["cluster"]
)
TENANT_RECORDS = Counter(
    "eventstore_tenant_records_total",
    "Records by tenant and outcome (accepted, rejected); the tenants after the first hundred share `_other`.",
    ["tenant", "outcome"],
)

# ---------------------------------------------------------------------------------------------------- the way there

FRESHNESS = Histogram(
    "eventstore_freshness_seconds",
    "Kafka's timestamp of the oldest of the records worked on together to the acknowledgement of their rows.",
    ["cluster"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200),
)
IN_FLIGHT_RECORDS = Gauge("eventstore_in_flight_records", "Records taken from Kafka and not yet finished.")
IN_FLIGHT_BYTES = Gauge("eventstore_in_flight_bytes", "Bytes taken from Kafka and not yet finished.")
COMMIT_LAG = Gauge(
    "eventstore_commit_lag_records", "Records of this worker's partitions that are not yet done with.", ["topic"]
)
COMMITS = Counter("eventstore_commits_total", "Partitions whose offset Kafka acknowledged.")
COMMIT_FAILURES = Counter(
    "eventstore_commit_failures_total", "Offset commits refused; tried again at the next interval."
)

# ----------------------------------------------------------------------------------------------------- the clusters

BATCHES = Counter(
    "eventstore_batches_total", "Single-partition batches made of those rows, attempts again not counted.", ["cluster"]
)
RETRIED = Counter("eventstore_retried_total", "Batches written again after a transient failure.", ["cluster"])
IN_FLIGHT_BATCHES = Gauge(
    "eventstore_in_flight_batches", "Batches being written, those that wait for another attempt included.", ["cluster"]
)
WRITE_SECONDS = Histogram(
    "eventstore_write_seconds",
    "Sent to acknowledged, of the slowest batch of each read from the network.",
    ["cluster"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
CIRCUIT_STATE = Gauge("eventstore_circuit_state", "0 closed, 1 half-open, 2 open.", ["cluster"])

# ------------------------------------------------------------------------------------------------------- the worker

CHECK = Gauge("eventstore_check", "1 while a health check passes, else 0; by probe (live, ready).", ["probe", "check"])
REGISTRY_RELOADS = Counter("eventstore_registry_reloads_total", "Registry documents put in force after the first.")
REGISTRY_RELOAD_FAILURES = Counter(
    "eventstore_registry_reload_failures_total", "Registry edits refused; the previous document stayed in force."
)

TENANTS_SHOWN: Final = 100
OTHER_TENANTS: Final = "_other"
"""No tenant's name starts with an underscore."""


class TenantCounts:
    """Counts by tenant with a bounded number of series: the first tenants seen, the busiest of a call first, get their own.

    A tenant keeps what it was given for the life of the process, so every series only grows.
    """

    def __init__(self, counter: Counter = TENANT_RECORDS, most: int = TENANTS_SHOWN) -> None:
        self._counter = counter
        self._most = most
        self._shown: set[str] = set()

    def add(self, outcome: str, records: Mapping[str, int]) -> None:
        """So many more records of each tenant had this outcome."""
        other = 0
        for tenant in sorted(records, key=records.__getitem__, reverse=True):
            if tenant in self._shown or len(self._shown) < self._most:
                self._shown.add(tenant)
                self._counter.labels(tenant, outcome).inc(records[tenant])
            else:
                other += records[tenant]
        if other:
            self._counter.labels(OTHER_TENANTS, outcome).inc(other)


# ------------------------------------------------------------------------------------------------------ the gateway

HTTP_REQUESTS = Counter(
    "eventstore_http_requests_total",
    "Requests answered, by route (never by path: that names users).",
    ["method", "route", "status"],
)
HTTP_SECONDS = Histogram(
    "eventstore_http_seconds",
    "Received to answered, by route; of a stream, until it ended.",
    ["route"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
LIVE_FEEDS = Gauge("eventstore_live_feeds", "Live feeds that are open.")
LIVE_ENDED = Counter(
    "eventstore_live_ended_total", "Live feeds that we have ended: slow, stopped, moved or failed.", ["cause"]
)
HTTP_BROKEN = Counter(
    "eventstore_http_broken_total",
    "Streamed answers that were broken off: their reader had gone, or took nothing, or a part of them failed.",
    ["route"],
)
HTTP_EVENTS = Counter("eventstore_http_events_total", "Events posted, by outcome: accepted or rejected.", ["outcome"])
