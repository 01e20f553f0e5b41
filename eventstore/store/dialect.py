"""What a tier's table looks like on the server that is there: the options of ScyllaDB and of Cassandra. Pure."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from eventstore.events.cells import TableName
from eventstore.store.ddl import Value
from eventstore.tenancy import BucketHistory, BucketStrategy, Compaction, Tier

GC_GRACE_SECONDS: Final = 86_400
"""Time to repair before a tombstone may go: not 0, because users can be erased."""
HOUR: Final = 3_600
WINDOWS: Final = 30
"""Time windows a retention is cut into; ScyllaDB refuses more than 50."""


class Dialect(StrEnum):
    SCYLLADB = "ScyllaDB"
    CASSANDRA = "Cassandra"


@dataclass(frozen=True, slots=True)
class Server:
    dialect: Dialect
    version: str

    def __str__(self) -> str:
        return f"{self.dialect} {self.version}"


def keyspace_options(tier: Tier, dialect: Dialect) -> dict[str, Value]:
    replication = {"class": "NetworkTopologyStrategy", tier.cluster.datacenter: str(tier.cluster.replication)}
    options: dict[str, Value] = {"replication": replication, "durable_writes": True}
    # the only moment at which tablets can be had: an existing keyspace cannot be moved to them
    return options | {"tablets": {"enabled": True}} if dialect is Dialect.SCYLLADB else options


def table_options(table: TableName, tier: Tier, dialect: Dialect) -> dict[str, Value]:
    """The options that are ours; all others are the server's defaults or the operator's choice."""
    # rows that are written over again and again have to be merged, whatever their time
    strategy = tier.compaction if table is TableName.EVENTS else Compaction.INCREMENTAL
    options: dict[str, Value] = {
        "gc_grace_seconds": GC_GRACE_SECONDS,
        "compaction": compaction(strategy, tier.retention_seconds, dialect),
    }
    if table is not TableName.LATEST:  # which knows no buckets
        options["comment"] = history_comment(tier.buckets)
    if table is not TableName.IMPRESSIONS:  # whose rows carry their own end
        options["default_time_to_live"] = tier.retention_seconds
    if dialect is Dialect.SCYLLADB:
        # with one replica there is nothing to repair, and ScyllaDB refuses the mode
        options["tombstone_gc"] = {"mode": "repair" if tier.cluster.replication > 1 else "timeout"}
    return options


def compaction(strategy: Compaction, retention_seconds: int, dialect: Dialect) -> dict[str, str]:
    if strategy is Compaction.TIME_WINDOW:
        size, unit = time_window(retention_seconds)
        return {
            "class": "TimeWindowCompactionStrategy",
            "compaction_window_size": str(size),
            "compaction_window_unit": unit,
        }
    if dialect is Dialect.SCYLLADB:
        return {"class": "IncrementalCompactionStrategy"}
    return {"class": "UnifiedCompactionStrategy", "scaling_parameters": "T4"}


def time_window(retention_seconds: int) -> tuple[int, str]:
    """The compaction window as size and unit: about a 30th of the retention, in whole hours where that is possible."""
    least = -(-retention_seconds // WINDOWS)
    if least < HOUR:
        return -(-least // 60), "MINUTES"
    hours = -(-least // HOUR)
    return (hours // 24, "DAYS") if hours % 24 == 0 else (hours, "HOURS")


def history_comment(buckets: BucketHistory) -> str:
    """The bucket strategies as the table's comment keeps them, so that they are known wherever the rows are."""
    strategies = [[strategy.effective_from_ms, strategy.width_ms] for strategy in buckets.strategies]
    return json.dumps({"buckets_from_ms_width_ms": strategies}, separators=(",", ":"))


def recorded_history(comment: object) -> BucketHistory | None:
    """The bucket strategies that a table's comment records; None if it records none."""
    try:
        strategies = json.loads(str(comment))["buckets_from_ms_width_ms"]
        return BucketHistory(tuple(BucketStrategy(int(start), int(width)) for start, width in strategies))
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
