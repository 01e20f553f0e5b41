"""How much one tenant may ask of one gateway: a token bucket each. Pure: `now` is passed in."""

from dataclasses import dataclass

from eventstore.tenancy import RateLimit


@dataclass(slots=True)
class TokenBucket:
    """Fills at a steady rate up to a burst."""

    limit: RateLimit
    tokens: float
    at: float
    """Seconds of a monotonic clock at which it held so many."""

    def take(self, tokens: int, now: float) -> float:
        """Take so many; 0 if they were there, else the seconds until they will be. More than a burst is let through when the
        bucket is full, and owed: a batch is never refused for its size alone.
        """
        limit = self.limit
        self.tokens = min(limit.burst, self.tokens + (now - self.at) * limit.per_second)
        self.at = now
        wanted = min(tokens, limit.burst)
        if self.tokens < wanted:
            return (wanted - self.tokens) / limit.per_second
        self.tokens -= tokens
        return 0.0


class TenantLimits:
    """The buckets of all tenants."""

    def __init__(self) -> None:
        self._buckets: dict[str, TokenBucket] = {}

    def wait(self, tenant: str, limit: RateLimit | None, tokens: int, now: float) -> float:
        """Seconds until the tenant may ask for so much; 0: now."""
        if limit is None:
            return 0.0
        bucket = self._buckets.get(tenant)
        if bucket is None or bucket.limit != limit:
            bucket = self._buckets[tenant] = TokenBucket(limit, limit.burst, now)
        return bucket.take(tokens, now)
