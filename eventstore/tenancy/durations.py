"""Durations as people write them: a whole number and a unit, such as `15d`, `12h`, `30m` or `90s`."""

import re
from typing import Final

UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_WRITTEN: Final = re.compile(r"([0-9]{1,9})([dhms])")


def parse_duration(text: str) -> int:
    """Seconds.

    Raises:
        ValueError: what was expected and what came.
    """
    if (found := _WRITTEN.fullmatch(text)) is None:
        raise ValueError(f"expected a duration such as 15d, 12h, 30m or 90s, got {text!r}")
    return int(found[1]) * UNITS[found[2]]


def format_duration(seconds: int) -> str:
    """The shortest text that `parse_duration` reads back as the same seconds."""
    unit = next(unit for unit, size in UNITS.items() if seconds % size == 0)
    return f"{seconds // UNITS[unit]}{unit}"
