"""Who the tenants are and where their events live. Pure: no input or output, no clock."""

from eventstore.tenancy.buckets import Bucket, BucketHistory, BucketStrategy
from eventstore.tenancy.durations import format_duration, parse_duration
from eventstore.tenancy.model import (
    ApiKey,
    Cluster,
    Compaction,
    Credentials,
    KeyUse,
    RateLimit,
    Registry,
    Tenant,
    Tier,
    TlsFiles,
)

__all__ = [
    "ApiKey",
    "Bucket",
    "BucketHistory",
    "BucketStrategy",
    "Cluster",
    "Compaction",
    "Credentials",
    "KeyUse",
    "RateLimit",
    "Registry",
    "Tenant",
    "Tier",
    "TlsFiles",
    "format_duration",
    "parse_duration",
]
