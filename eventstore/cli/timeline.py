"""`eventstore timeline`: one user's past."""

import asyncio
import logging
import shlex
import sys
from collections.abc import Callable, Coroutine
from contextlib import aclosing, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from eventstore.cli.console import AsJson, err, out
from eventstore.clock import now_ms
from eventstore.config import load_settings
from eventstore.events.moment import parse_moment
from eventstore.events.stored import StoredEvent
from eventstore.events.validate import micros_of
from eventstore.registry import load_registry
from eventstore.tenancy.durations import parse_duration
from eventstore.timeline import MAX_PAGE, Page, Timeline, TimelineQuery
from eventstore.timeline.connect import open_timeline

T = TypeVar("T")

ROWS: Final = 20
"""Events of one page on a terminal."""


def register(app: typer.Typer) -> None:
    app.command("timeline")(timeline)


def instant(text: str) -> int:
    """RFC 3339 to milliseconds since the epoch."""
    try:
        return micros_of(parse_moment(text)) // 1_000
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def duration(text: str) -> int:
    """`30d`, `12h` to milliseconds."""
    try:
        return parse_duration(text) * 1_000
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def timeline(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's name in the registry.")],
    uid: Annotated[str, typer.Argument(metavar="UID", help="The user's id, as its producers send it.")],
    *,
    last: Annotated[
        int | None,
        typer.Option(parser=duration, metavar="DURATION", help="How far back: 30d, 12h. Default: the whole retention."),
    ] = None,
    start: Annotated[
        int | None, typer.Option("--from", parser=instant, metavar="RFC3339", help="First event time, inclusive.")
    ] = None,
    end: Annotated[
        int | None, typer.Option("--to", parser=instant, metavar="RFC3339", help="Last event time, exclusive.")
    ] = None,
    event: Annotated[str | None, typer.Option(help="Only events of this name.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"Most events. Default: {ROWS} a page (at most {MAX_PAGE}), all with --ndjson."),
    ] = None,
    cursor: Annotated[str | None, typer.Option(help="Go on where the page that gave this cursor ended.")] = None,
    count: Annotated[bool, typer.Option("--count", help="Only how many events there are.")] = False,
    latest: Annotated[str | None, typer.Option(metavar="NAME", help="Only the newest event of this name.")] = None,
    ndjson: Annotated[bool, typer.Option("--ndjson", help="Every event as one line of JSON.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one user's events, newest first.

    Times are event times, printed in UTC. `--json` prints one document with `next_cursor`; a user without events is an
    empty result, not a failure.

    Examples:
    - `eventstore timeline shop u-4711 --last 30d`
    - `eventstore timeline shop u-4711 --event product_viewed --limit 5 --json`
    - `eventstore timeline shop u-4711 --from 2026-03-01T00:00:00Z --to 2026-03-02T00:00:00Z --ndjson > events.ndjson`
    - `eventstore timeline shop u-4711 --latest product_viewed`
    - `eventstore timeline shop u-4711 --last 7d --count`
    """
    if last is not None and start is not None:
        raise typer.BadParameter("expected --last or --from, got both; leave one out")
    if sum((count, latest is not None, ndjson)) > 1:
        raise typer.BadParameter("expected at most one of --count, --latest and --ndjson; leave the others out")
    if latest is not None and event is not None:
        raise typer.BadParameter("expected --latest or --event, got both; --latest already names the event")
    query = TimelineQuery(tenant, uid, now_ms() - last if last is not None else start, end, event)
    if latest is not None:
        _latest(replace(query, event=latest), as_json=as_json)
    elif count:
        _count(query, as_json=as_json)
    elif ndjson:
        _stream(query, cursor, limit)
    else:
        _page(query, cursor, limit or ROWS, as_json=as_json)


def events_table(title: str, events: list[StoredEvent]) -> Table:
    """Time, name and properties of each event, one line each, cut to the terminal's width."""
    made = Table(title=_plain(title), title_justify="left", header_style="bold", expand=True)
    made.add_column("time (UTC)", no_wrap=True)
    made.add_column("event", overflow="fold")
    made.add_column("properties", no_wrap=True, overflow="ellipsis", ratio=1)
    for event in events:
        made.add_row(_time(event.timestamp), _plain(event.event), _plain(bytes(event.properties).decode()))
    return made


def _page(query: TimelineQuery, cursor: str | None, limit: int, *, as_json: bool) -> None:
    page = _wait(query, lambda found: found.page(query, limit=limit, cursor=cursor))
    if as_json:
        _print_json({"tenant": query.tenant, "uid": query.uid, "events": page.events, "next_cursor": page.next_cursor})
    else:
        _show(query, page)


def _latest(query: TimelineQuery, *, as_json: bool) -> None:
    event = _wait(query, lambda found: found.latest(query))
    if as_json:
        _print_json({"tenant": query.tenant, "uid": query.uid, "latest": event})
    else:
        _show(query, Page([event] if event else [], None))


def _count(query: TimelineQuery, *, as_json: bool) -> None:
    events = _wait(query, lambda found: found.count(query))
    if as_json:
        _print_json({"tenant": query.tenant, "uid": query.uid, "count": events})
    else:
        out.print(events)


def _stream(query: TimelineQuery, cursor: str | None, limit: int | None) -> None:
    async def stream(found: Timeline) -> int:
        written = 0
        async with aclosing(found.iterate(query, cursor=cursor)) as events:
            async for event in events:
                # producers' JSON may hold line breaks between its tokens, never inside a string
                line = msgspec.json.encode(event).translate(_ONE_LINE)
                sys.stdout.buffer.write(line + b"\n")
                written += 1
                if written == limit:
                    break
        return written

    # a spinner would run through the lines if both went to the terminal
    with nullcontext() if sys.stdout.isatty() else err.status(f"reading {_plain(query.uid).plain}"):
        written = _ask(stream)
    if not written:
        _note_empty(query)


_ONE_LINE: Final = bytes.maketrans(b"\r\n", b"  ")


def _wait(query: TimelineQuery, question: Callable[[Timeline], Coroutine[Any, Any, T]]) -> T:
    with err.status(f"reading {_plain(query.uid).plain}"):
        return _ask(question)


def _ask(question: Callable[[Timeline], Coroutine[Any, Any, T]]) -> T:
    # the driver warns of every node that does not answer; our one error line says it
    logging.getLogger("cassandra").setLevel(logging.CRITICAL)
    settings = load_settings()
    registry = load_registry(settings.registry)

    async def ask() -> T:
        async with open_timeline(settings, lambda: registry) as found:
            return await question(found)

    return asyncio.run(ask())


def _show(query: TimelineQuery, page: Page) -> None:
    if not page.events:
        _note_empty(query)
        return
    out.print(events_table(f"{query.uid} of {query.tenant}, newest first", page.events))
    if page.next_cursor is not None:
        err.print("Older:", _next_command(query, page.next_cursor), markup=False, soft_wrap=True)


def _next_command(query: TimelineQuery, cursor: str) -> str:
    event = ["--event", query.event] if query.event is not None else []
    return shlex.join(["eventstore", "timeline", "--cursor", cursor, *event, "--", query.tenant, query.uid])


def _note_empty(query: TimelineQuery) -> None:
    what = f"no event {query.event}" if query.event else "no events"
    err.print(f"{what} of user {_plain(query.uid).plain} of {query.tenant} in this range", markup=False, soft_wrap=True)


def _print_json(document: dict[str, Any]) -> None:
    encoded = msgspec.json.encode(document)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded, indent=2)
    sys.stdout.buffer.write(encoded + b"\n")
    sys.stdout.buffer.flush()


def _time(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1_000, UTC).isoformat(sep=" ", timespec="milliseconds")[:-6]


def _plain(text: str) -> Text:
    """One line without control characters: a producer's text must not drive somebody's terminal."""
    return Text("".join(char if char.isprintable() else "�" for char in " ".join(text.split())))
