"""The wall clock. Rules never read it: the edges do, and pass the moment in."""

import time


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def now_micros() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1_000
