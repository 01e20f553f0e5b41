"""Whether one registry may follow another while rows written under the older one are still there."""

from collections.abc import Iterator
from typing import Final

from eventstore.errors import Problem
from eventstore.tenancy.durations import format_duration
from eventstore.tenancy.model import Registry, Tier

NOTICE_MS: Final = 24 * 3_600_000
"""How far ahead of now a new bucket strategy must begin: events may be stamped that far in the future."""


def succession_problems(old: Registry, new: Registry, now_ms: int) -> list[Problem]:
    """Edits that are valid by themselves but would lose sight of rows; empty if `new` may follow `old`.

    Args:
        old: the registry in force.
        new: the one to follow it.
        now_ms: milliseconds since the epoch.
    """
    return [problem for before in old.tiers.values() for problem in _tier_problems(before, new, now_ms)]


def _tier_problems(before: Tier, new: Registry, now_ms: int) -> Iterator[Problem]:
    after = new.tiers.get(before.name)
    if after is not None and after.cluster.name != before.cluster.name:
        yield Problem(
            f"tiers.{before.name}.cluster",
            f"expected {before.cluster.name}, where its rows are, got {after.cluster.name}; "
            "make a new tier on the new cluster and move tenants to it",
        )
    # rows belong to a cluster, whatever its tier is called
    heir = new.tier_of(before.cluster.name)
    if heir is not None:
        yield from _row_problems(before, heir, now_ms)


def _row_problems(before: Tier, after: Tier, now_ms: int) -> Iterator[Problem]:
    where = f"clusters.{after.name}" if after.name == after.cluster.name else f"tiers.{after.name}"
    if after.cluster.keyspace != before.cluster.keyspace:
        yield Problem(
            f"clusters.{after.cluster.name}.keyspace",
            f"expected {before.cluster.keyspace}, where its rows are, got {after.cluster.keyspace}; "
            "add a cluster with the new keyspace instead",
        )
    if after.retention_seconds != before.retention_seconds:
        yield Problem(
            f"{where}.retention",
            f"expected {format_duration(before.retention_seconds)}, which rows are written with, got "
            f"{format_duration(after.retention_seconds)}; make a new tier, or raise it with "
            "`eventstore schema apply` and restart",
        )
    if told := after.buckets.contradiction(before.buckets, now_ms + NOTICE_MS):
        yield Problem(f"{where}.buckets", told)
