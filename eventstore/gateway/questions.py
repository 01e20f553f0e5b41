"""What a query string asks: every field is checked, and a wrong one named."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Self

from eventstore.events.moment import parse_moment
from eventstore.events.validate import micros_of
from eventstore.gateway.http import HttpError, Request
from eventstore.tenancy.durations import parse_duration

RANGE = ("last", "from", "to")
MAX_DIGITS = 9


def fields_of(request: Request, known: Collection[str]) -> dict[str, str]:
    """The query's fields.

    Raises:
        HttpError: 400, one that the route does not know, or a query that cannot be read.
    """
    fields = request.query()
    for name in fields:
        if name not in known:
            raise HttpError(
                400, f"{name[:80]}: expected one of {', '.join(known)}, got another parameter; mend its name"
            )
    return fields


@dataclass(frozen=True, slots=True)
class Range:
    """A range of event times as it was asked for: two that ask for the last 30 days ask the same, a moment apart."""

    last_ms: int | None = None
    start_ms: int | None = None
    end_ms: int | None = None

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Self:
        """From `last`, `from` and `to`; without any: the whole retention.

        Raises:
            HttpError: 400.
        """
        if "last" in fields and "from" in fields:
            raise HttpError(400, "last: expected last or from, got both; leave one out")
        return cls(_duration_ms(fields), _moment_ms(fields, "from"), _moment_ms(fields, "to"))

    def begins_ms(self, now_ms: int) -> int | None:
        """Where it begins, in milliseconds since the epoch; None: as far back as there is."""
        return self.start_ms if self.last_ms is None else now_ms - self.last_ms


def number(fields: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number from 1.

    Raises:
        HttpError: 400.
    """
    text = fields.get(name)
    if text is None:
        return default
    plain = text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS
    if not plain or not 0 < int(text) <= most:
        raise HttpError(400, f"{name}: expected a whole number from 1 to {most}, got {text[:80]!r}")
    return int(text)


def _duration_ms(fields: Mapping[str, str]) -> int | None:
    if (text := fields.get("last")) is None:
        return None
    try:
        return parse_duration(text[:80]) * 1_000
    except ValueError as error:
        raise HttpError(400, f"last: {error}") from error


def _moment_ms(fields: Mapping[str, str], name: str) -> int | None:
    if (text := fields.get(name)) is None:
        return None
    try:
        return micros_of(parse_moment(text[:80])) // 1_000
    except ValueError as error:
        raise HttpError(400, f"{name}: {error}; a + in a query is written %2B") from error
