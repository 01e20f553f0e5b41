"""A limit to records a second, kept over time and not record by record. Pure; `now` is passed in."""

from dataclasses import dataclass

BURST_SECONDS = 1.0
"""After a standstill at most so much of what was missed is made good for at once."""


@dataclass(slots=True)
class RateLimit:
    """A token bucket, told as the time at which everything granted so far has been paid for."""

    per_second: float
    _paid_at: float = float("-inf")

    def delay(self, records: int, now: float) -> float:
        """Seconds to wait before so many records may be worked on; the grant counts from this call on."""
        self._paid_at = max(self._paid_at, now - BURST_SECONDS)
        wait = max(0.0, self._paid_at - now)
        self._paid_at += records / self.per_second
        return wait
