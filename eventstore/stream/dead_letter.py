"""One record of the dead-letter topic, read back; which of them are meant; what each takes to be mended."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from eventstore.errors import ConfigurationError
from eventstore.events import Coordinates, Reason
from eventstore.events.moment import parse_moment
from eventstore.stream import headers as names

MENDS: Final[Mapping[str, str]] = {
    Reason.EMPTY: "there is nothing to store: the producer must not send records without a value",
    Reason.TOO_LARGE: "the producer must publish it again in smaller events",
    Reason.MALFORMED: "the producer must publish it again as JSON of the envelope's shape",
    Reason.LIMIT: "the producer must publish it again with fields inside their limits",
    Reason.TIMESTAMP: "too far in the future: replay it when that time is near; else the producer must correct it",
    Reason.KEY_MISMATCH: "the producer must publish it again under the key `tenant:uid`",
    Reason.UNKNOWN_TENANT: "add the tenant to the registry, then replay; else its producer is not ours",
    Reason.DISABLED_TENANT: "enable the tenant in the registry, then replay",
    Reason.UNKNOWN_EVENT: "list the event in the registry or set `other_events: allow`, then replay",
    Reason.SCHEMA: "if the schema is too strict, mend it and replay; else the producer must publish it again",
}


class DeadLetter(msgspec.Struct, frozen=True):
    """A rejected record as it was, and what was said about it."""

    partition: int
    offset: int
    """Where it stands in the dead-letter topic."""
    reason: str
    """A `Reason`, or a code of a newer version."""
    detail: str
    source: Coordinates
    """Where it stood when it was rejected."""
    time: datetime
    """When that was, UTC."""
    version: str
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    """Its own headers, without those that make it a dead letter."""

    @property
    def tenant(self) -> str:
        """As its body says, else as its key says, else empty."""
        try:
            return _tenant(self.value or b"").tenant
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return (self.key or b"").partition(b":")[0].decode(errors="backslashreplace")

    def headers_for_replay(self) -> list[tuple[str, bytes | None]]:
        """Its own headers and where it first stood."""
        return names.with_origin(self.headers, self.source)


class Marker(msgspec.Struct, frozen=True):
    """A record that says which dead letters of its own partition have been replayed, and to which topic."""

    partition: int
    target: str
    offsets: list[int]

    def headers(self) -> list[tuple[str, bytes | None]]:
        return [(names.REPLAYED, self.target.encode())]

    def value(self) -> bytes:
        return msgspec.json.encode(self.offsets)


class Stranger(msgspec.Struct, frozen=True):
    """A record in the dead-letter topic that Eventstore did not write."""

    partition: int
    offset: int


class _Body(msgspec.Struct):
    tenant: str


_tenant = msgspec.json.Decoder(_Body).decode
_offsets = msgspec.json.Decoder(list[int]).decode


def read(
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
) -> DeadLetter | Marker | Stranger:
    """What a record of the dead-letter topic is. Never raises."""
    own, ours = headers[: -len(names.DEAD_LETTER)], headers[-len(names.DEAD_LETTER) :]
    try:
        if tuple(name for name, _ in ours) == names.DEAD_LETTER:
            reason, detail, topic, source_partition, source_offset, time, version, timestamp = (
                (text or b"").decode() for _, text in ours
            )
            source = Coordinates(topic, int(source_partition), int(source_offset))
            moment = datetime.fromisoformat(time).astimezone(UTC)
            at = int(timestamp)
            return DeadLetter(partition, offset, reason, detail, source, moment, version, at, key, value, own)
        if [name for name, _ in headers] == [names.REPLAYED]:
            return Marker(partition, (headers[0][1] or b"").decode(), _offsets(value or b""))
    except (ValueError, OverflowError, RecursionError):
        pass
    return Stranger(partition, offset)


class Where:
    """Which dead letters are meant: `reason=schema`, `tenant=acme`, `topic=`, `partition=`, `after=`, `before=`.

    Conditions on different fields must all hold; of several on one field, one is enough. `after` (inclusive) and
    `before` take RFC 3339 with a zone and mean the time of the rejection.
    """

    def __init__(self, conditions: Iterable[str]) -> None:
        """Raises ConfigurationError for a condition that cannot be read."""
        self._tests: dict[str, list[Callable[[DeadLetter], bool]]] = {}
        for condition in conditions:
            name, equals, value = condition.partition("=")
            if not equals or not value or name not in _CONDITIONS:
                known = ", ".join(f"{known}=" for known in _CONDITIONS)
                raise ConfigurationError(f"--where {condition}: expected one of {known} and a value")
            self._tests.setdefault(name, []).append(_CONDITIONS[name](value))

    def matches(self, letter: DeadLetter) -> bool:
        return all(any(test(letter) for test in tests) for tests in self._tests.values())


def _moment(text: str) -> datetime:
    try:
        return parse_moment(text)
    except ValueError as error:
        raise ConfigurationError(f"--where: {error}") from None


def _after(text: str) -> Callable[[DeadLetter], bool]:
    start = _moment(text)
    return lambda letter: letter.time >= start


def _before(text: str) -> Callable[[DeadLetter], bool]:
    end = _moment(text)
    return lambda letter: letter.time < end


def _equal(field: Callable[[DeadLetter], Any]) -> Callable[[str], Callable[[DeadLetter], bool]]:
    return lambda value: lambda letter: str(field(letter)) == value


_CONDITIONS: Final[Mapping[str, Callable[[str], Callable[[DeadLetter], bool]]]] = {
    "reason": _equal(lambda letter: letter.reason),
    "tenant": _equal(lambda letter: letter.tenant),
    "topic": _equal(lambda letter: letter.source.topic),
    "partition": _equal(lambda letter: letter.source.partition),
    "after": _after,
    "before": _before,
}
