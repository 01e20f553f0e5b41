"""The options by which replay commands name a range and a scope, and what they mean together."""

import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from eventstore.cli.timeline import duration, instant
from eventstore.clock import now_ms
from eventstore.config import load_settings
from eventstore.errors import ConfigurationError
from eventstore.replay.bounds import AtMark, AtOffset, AtOffsets, AtTime, Bound, Committed, Earliest, Latest
from eventstore.replay.planning import Request
from eventstore.replay.scope import Scope

OFFSETS = "OFFSET or FILE"

FromOffset = Annotated[
    str | None,
    typer.Option(
        metavar=OFFSETS,
        help="Begin there in every partition; or in each where the file says: lines of `topic,partition,offset` (as "
        "kafka-consumer-groups exports them) or `partition,offset`.",
    ),
]
FromTimestamp = Annotated[
    int | None,
    typer.Option(parser=instant, metavar="RFC3339", help="Begin with what Kafka was given at this time or later."),
]
Last = Annotated[
    int | None, typer.Option("--last", parser=duration, metavar="DURATION", help="Begin so long ago: 6h, 2d.")
]
FromMark = Annotated[
    str | None, typer.Option(metavar="NAME", help="Begin where the live group stood when the mark was made.")
]
FromEarliest = Annotated[bool, typer.Option("--from-earliest", help="Begin with the first record still held.")]
ToOffset = Annotated[str | None, typer.Option(metavar=OFFSETS, help="End before it.")]
ToTimestamp = Annotated[
    int | None, typer.Option(parser=instant, metavar="RFC3339", help="End before what Kafka was given at this time.")
]
ToMark = Annotated[str | None, typer.Option(metavar="NAME", help="End where the live group stood then.")]
ToLatest = Annotated[bool, typer.Option("--to-latest", help="End where the topic ends now.")]
Clusters = Annotated[
    list[str] | None, typer.Option("--cluster", metavar="NAME", help="Only events that live on this cluster.")
]
Tiers = Annotated[list[str] | None, typer.Option("--tier", metavar="NAME", help="Only events of this tier.")]
Tenants = Annotated[list[str] | None, typer.Option("--tenant", metavar="NAME", help="Only events of this tenant.")]
Events = Annotated[list[str] | None, typer.Option("--event", metavar="NAME", help="Only events of this name.")]
Into = Annotated[
    str | None,
    typer.Option(metavar="CLUSTER", help="Write there instead of the tier's own cluster: a rebuilt or parallel one."),
]
AcceptGap = Annotated[
    bool, typer.Option("--accept-gap", help="Take what the topic still holds, if the beginning is gone.")
]

_LINE: Final = re.compile(r"(?:([^,\s]+)\s*,\s*)?(\d+)\s*,\s*(\d+)")


def one_of(options: Sequence[tuple[str, Bound | None]], default: Bound | None = None) -> Bound:
    """The one bound that was given.

    Raises:
        ConfigurationError: several were given; or none, and there is no default.
    """
    given = [(option, bound) for option, bound in options if bound is not None]
    names = ", ".join(option for option, _ in options)
    if len(given) > 1:
        raise ConfigurationError(f"expected one of {names}, got {', '.join(option for option, _ in given)}")
    bound = given[0][1] if given else default
    if bound is None:
        raise ConfigurationError(f"expected one of {names}, got none of them")
    return bound


def request_of(
    *,
    from_offset: FromOffset = None,
    from_timestamp: FromTimestamp = None,
    last: Last = None,
    from_mark: FromMark = None,
    from_earliest: FromEarliest = False,
    to_offset: ToOffset = None,
    to_timestamp: ToTimestamp = None,
    to_mark: ToMark = None,
    to_latest: ToLatest = False,
    cluster: Clusters = None,
    tier: Tiers = None,
    tenant: Tenants = None,
    event: Events = None,
    into: Into = None,
    accept_gap: AcceptGap = False,
) -> Request:
    """What these options ask for.

    Raises:
        ConfigurationError: not exactly one beginning, or more than one end.
    """
    topic = load_settings().topics.events
    start = one_of((
        ("--from-offset", _offsets("--from-offset", from_offset, topic)),
        ("--from-timestamp", None if from_timestamp is None else AtTime(from_timestamp)),
        ("--last", None if last is None else AtTime(now_ms() - last)),
        ("--from-mark", None if from_mark is None else AtMark(from_mark)),
        ("--from-earliest", Earliest() if from_earliest else None),
    ))  # fmt: skip
    end = one_of(
        (
            ("--to-offset", _offsets("--to-offset", to_offset, topic)),
            ("--to-timestamp", None if to_timestamp is None else AtTime(to_timestamp)),
            ("--to-mark", None if to_mark is None else AtMark(to_mark)),
            ("--to-latest", Latest() if to_latest else None),
        ),
        Committed(),
    )
    scope = Scope(tuple(cluster or ()), tuple(tier or ()), tuple(tenant or ()), tuple(event or ()), into)
    return Request(start, end, scope, accept_gap)


OPTIONS: Final = inspect.signature(request_of).parameters


def with_range(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `request_of`, which it gets as its argument `request`: declared once for all.

    A command whose `request` may be None gets None if none of them was given.
    """
    own = [each for each in inspect.signature(command).parameters.values() if each.name != "request"]
    optional = inspect.signature(command).parameters["request"].default is None

    def wrapped(**given: Any) -> None:
        asked = {name: given.pop(name) for name in OPTIONS}
        nothing = optional and not any(asked.values())
        command(**given, request=None if nothing else request_of(**asked))

    parameters = [*own, *OPTIONS.values()]
    # typer reads the signature for the order and the defaults, the annotations for the rest
    wrapped.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # functions may have one of their own
        [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    )
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    return wrapped


def _offsets(option: str, text: str | None, topic: str) -> Bound | None:
    if text is None:
        return None
    if text.isascii() and text.isdecimal():
        return AtOffset(int(text))
    try:
        lines = Path(text).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{option}: expected an offset or a readable file of offsets, got {text!r} ({error})"
        ) from error
    return AtOffsets(parse_offsets(f"{option} {text}", lines, topic))


def parse_offsets(source: str, lines: Sequence[str], topic: str) -> dict[int, int]:
    """Offsets by partition, from lines of `topic,partition,offset` or `partition,offset`.

    Raises:
        ConfigurationError: a line that is neither, or is of another topic.
    """
    found: dict[int, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        read = _LINE.fullmatch(line.strip().replace('"', ""))
        if read is None or (read[1] is not None and read[1] != topic) or int(read[2]) in found:
            raise ConfigurationError(
                f"{source}, line {number}: expected `{topic},partition,offset` or `partition,offset`, each partition "
                f"once, got {line!r}"
            )
        found[int(read[2])] = int(read[3])
    if not found:
        raise ConfigurationError(f"{source}: expected lines of `partition,offset`, found none")
    return found
