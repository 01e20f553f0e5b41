"""A point in time as people write it in options, filters and the registry."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


def parse_moment(text: str) -> datetime:
    """RFC 3339 with a zone, by the rules that an event's `timestamp` keeps.

    Raises:
        ValueError: it is anything else; one line that says so.
    """
    try:
        return msgspec.convert(text, _Moment)
    except msgspec.ValidationError:
        raise ValueError(f"expected RFC 3339 with a zone, such as 2026-03-01T00:00:00Z, got {text!r}") from None


def rfc3339(millis: int) -> str:
    """Milliseconds since the epoch as people write it, in UTC; the milliseconds are shown if there are any."""
    moment = datetime.fromtimestamp(millis // 1_000, UTC).replace(microsecond=millis % 1_000 * 1_000)
    text = moment.isoformat(timespec="milliseconds" if millis % 1_000 else "seconds")
    return text.replace("+00:00", "Z")
