"""Which slices of which partitions a question needs, newest first. Pure: `now` is passed in."""

from dataclasses import dataclass

from eventstore.errors import QueryError
from eventstore.events.stored import Position, Slice
from eventstore.events.validate import MAX_EVENT_NAME_BYTES, MAX_UID_BYTES
from eventstore.tenancy import Tier


@dataclass(frozen=True, slots=True)
class TimelineQuery:
    """A question about one user's past: the events of `[start_ms, end_ms)`, or only those named `event`.

    Times are event times in milliseconds since the epoch; None leaves that side open. The past ends where the retention
    ends. The open future is not now but the furthest event time that workers accept: a client whose clock is a second
    ahead has sent the user's very last action.

    Raises:
        QueryError: a range without room, or a name that no event can have.
    """

    tenant: str
    uid: str
    start_ms: int | None = None
    end_ms: int | None = None
    event: str | None = None

    def __post_init__(self) -> None:
        for name, text, most in (
            ("tenant", self.tenant, MAX_UID_BYTES),
            ("uid", self.uid, MAX_UID_BYTES),
            ("event", self.event, MAX_EVENT_NAME_BYTES),
        ):
            if text is not None:
                check_text(name, text, most)
        if self.start_ms is not None and self.end_ms is not None and self.start_ms >= self.end_ms:
            raise QueryError(
                f"range: expected a start before its end, got {self.start_ms} to {self.end_ms} ms; swap or widen them"
            )


def plan(query: TimelineQuery, tier: Tier, now_ms: int, max_future_ms: int, before: Position | None) -> list[Slice]:
    """The slices to read, newest first; together they hold every row of the question exactly once.

    Rows of one event time always share a bucket, because writers choose it by event time: so reading the slices one
    after the other gives one order. `before` is where the last page stopped.
    """
    start = max(query.start_ms or 0, now_ms - tier.retention_seconds * 1_000, 0)
    end = now_ms + max_future_ms
    if query.end_ms is not None:
        end = min(end, query.end_ms)
    if before is not None:
        end = min(end, before.timestamp_ms + 1)  # rows of the same millisecond may be left
    return [
        Slice(
            query.tenant,
            query.uid,
            bucket.bid,
            max(start, bucket.start_ms),
            min(Position(bucket.end_ms), before or Position(end)),
        )
        for bucket in reversed(tier.buckets.between(start, end))
    ]


def check_page(limit: int, most: int, what: str) -> None:
    """Raises QueryError if no page can have so many events, say."""
    if not 0 < limit <= most:
        raise QueryError(f"limit: expected 1 to {most} {what} a page, got {limit}; ask for less and use the cursor")


def check_text(name: str, text: str, most: int) -> None:
    """Raises QueryError if nothing can have this name."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:  # a command line or URL that is not UTF-8 arrives as lone surrogates
        raise QueryError(f"{name}: expected UTF-8 text, got {text!r}; mend its encoding") from error
    if not 0 < size <= most:
        raise QueryError(f"{name}: expected 1 to {most} bytes, got {size}; nothing that is stored has such a name")
