"""`eventstore dlq`: what was rejected, why, and back into the stream after a mend."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import orjson
import typer

from eventstore.cli.console import AsJson, err, out, print_json, printable, progress, table
from eventstore.config import Settings, load_settings
from eventstore.errors import ConfigurationError, EventstoreError
from eventstore.stream import headers as names
from eventstore.stream.dead_letter import MENDS, DeadLetter, Marker, Where
from eventstore.stream.dead_letter_log import DeadLetterLog, Replay
from eventstore.stream.dead_letter_summary import Summary
from eventstore.stream.producer import RecordProducer
from eventstore.stream.range_reader import Progress

dlq = typer.Typer(name="dlq", help="List, explain and replay dead letters.", no_args_is_help=True)

Conditions = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="FIELD=VALUE",
        help="Only these: `reason=`, `tenant=`, `topic=`, `partition=` (of the source), `after=`, `before=` (RFC 3339). "
        "Repeat it to narrow down; the same field twice means either.",
    ),
]


def register(app: typer.Typer) -> None:
    app.add_typer(dlq)


@dlq.command("list")
def list_letters(where: Conditions = None, *, as_json: AsJson = False) -> None:
    """Count dead letters by reason, tenant and source topic; `replayed` ones went back to their topic.

    Reads the topic up to where it ends now. `latest` is the place of the latest letter, for `show`.

    Examples:
    - `eventstore dlq list`
    - `eventstore dlq list --where reason=schema --where after=2026-09-01T00:00:00Z`
    - `eventstore dlq list --where tenant=acme --json`
    """
    settings, chosen = load_settings(), Where(where or [])
    log = DeadLetterLog(settings.kafka, settings.topics.dead_letters)
    summary = Summary()
    with _bar("looking for replays") as bar:
        replayed = log.replayed(bar)
    with _bar("reading dead letters") as bar:
        for record in log.scan(bar):
            if isinstance(record, DeadLetter):
                if chosen.matches(record):
                    summary.add(record, replayed=(record.source.topic, record.partition, record.offset) in replayed)
            elif not isinstance(record, Marker):
                summary.strangers += 1
    _print_summary(summary, log.topic, as_json=as_json)


def _print_summary(summary: Summary, topic: str, *, as_json: bool) -> None:
    ordered = sorted(summary.groups.items(), key=lambda item: -item[1].waiting)
    if as_json:
        print_json([
            {
                "reason": reason, "tenant": tenant, "topic": source, "waiting": group.waiting,
                "replayed": group.replayed, "first": group.first, "last": group.last, "latest": group.latest,
            }
            for (reason, tenant, source), group in ordered
        ])  # fmt: skip
    elif ordered:
        # eight columns would not fit a terminal of 80: since when, and from which topic, stands in --json
        columns = ("reason", "tenant", "waiting#", "replayed#", "last", "latest")
        rows = (
            (reason, tenant, g.waiting, g.replayed, _minute(g.last), g.latest) for (reason, tenant, _), g in ordered
        )
        out.print(table(f"Dead letters in {topic}", columns, rows))
    else:
        out.print(f"No dead letters in {topic}.")
    if summary.strangers:
        err.print(f"{summary.strangers} records in {topic} were not written by Eventstore: not counted, never replayed")


def _minute(when: str) -> str:
    return when[:16].replace("T", " ")


@dlq.command()
def show(
    place: Annotated[
        str, typer.Argument(help="PARTITION/OFFSET in the dead-letter topic, or the source's TOPIC/PARTITION/OFFSET.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: why it was rejected, what it takes to mend it, its headers and body.

    Examples:
    - `eventstore dlq show 3/17`
    - `eventstore dlq show events/3/1234 --json`
    """
    settings = load_settings()
    log = DeadLetterLog(settings.kafka, settings.topics.dead_letters)
    letter = _found(log, place)
    if letter is None:
        raise EventstoreError(
            f"{place}: expected a dead letter there in {log.topic}, found none; see `eventstore dlq list`"
        )
    shown = _as_dict(letter)
    if as_json:
        print_json(shown)
        return
    body, headers = shown.pop("body"), shown.pop("headers")
    out.print(
        table(f"Dead letter {letter.partition}/{letter.offset} of {log.topic}", ("field", "value"), shown.items())
    )
    if headers:
        out.print(table("Its own headers", ("name", "value"), headers))
    out.print("body:", style="bold")
    text = body if isinstance(body, str) else orjson.dumps(body, option=orjson.OPT_INDENT_2).decode()
    out.print(printable(text), markup=False, soft_wrap=True)


def _found(log: DeadLetterLog, place: str) -> DeadLetter | None:
    if source := names.parse_coordinates(place):
        with _bar("reading dead letters") as bar:
            letters = (letter for letter in log.scan(bar) if isinstance(letter, DeadLetter) and letter.source == source)
            return max(letters, key=lambda letter: letter.time, default=None)
    if (numbers := names.parse_coordinates(f"{log.topic}/{place}")) is None:
        raise ConfigurationError(f"{place}: expected PARTITION/OFFSET or TOPIC/PARTITION/OFFSET")
    record = log.at(numbers.partition, numbers.offset)
    return record if isinstance(record, DeadLetter) else None


def _as_dict(letter: DeadLetter) -> dict[str, Any]:
    return {
        "reason": letter.reason,
        "detail": letter.detail,
        "mend": MENDS.get(letter.reason, "a newer version wrote this reason: see its documentation"),
        "tenant": letter.tenant,
        "source": str(letter.source),
        "first stood at": str(names.origin(letter.headers) or letter.source),
        "rejected": letter.time.isoformat().replace("+00:00", "Z"),
        "by version": letter.version,
        "published (ms)": letter.timestamp_ms,
        "key": "(none)" if letter.key is None else _text(letter.key),
        "headers": [[name, None if value is None else _text(value)] for name, value in letter.headers],
        "body": _body(letter.value),
    }


def _body(value: bytes | None) -> Any:
    if value is None:
        return "(no value: a tombstone)"
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return _text(value)


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


@dlq.command()
def replay(
    where: Conditions = None,
    to: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="Publish there instead of to the source topic.")
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be published.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish dead letters again, after what rejected them has been mended: bytes, key and headers as they were.

    Safe to repeat: what has been replayed is marked in the dead-letter topic and passed over, and a record published
    twice still makes one row. What is rejected again comes back as a new dead letter.

    Examples:
    - `eventstore dlq replay --where reason=unknown_tenant --where tenant=acme --dry-run`
    - `eventstore dlq replay --where reason=schema --where topic=events`
    - `eventstore dlq replay --to events.sandbox`
    """
    settings = load_settings()
    run = Replay(
        DeadLetterLog(settings.kafka, settings.topics.dead_letters), _producer(settings, to), Where(where or []), to
    )
    started = time.monotonic()

    def note() -> str:
        rate = run.published / max(time.monotonic() - started, 0.001)
        return f"{run.matched:,} match, {run.published:,} published, {rate:,.0f}/s"

    try:
        with _bar("replaying", note) as bar:
            run.run(bar, dry_run=dry_run)
    finally:
        _print_replay(run, dry_run=dry_run, as_json=as_json)


def _producer(settings: Settings, to: str | None) -> RecordProducer:
    return RecordProducer(settings.kafka, settings.producer, to or settings.topics.events)


def _print_replay(run: Replay, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        counts = {"matched": run.matched, "already_replayed": run.already, "published": run.published}
        print_json(counts | {"dry_run": dry_run})
    elif dry_run:
        out.print(
            f"{run.matched:,} match, {run.already:,} of them replayed before: {run.matched - run.already:,} to publish"
        )
    else:
        out.print(f"{run.matched:,} match, {run.already:,} of them replayed before, {run.published:,} published")


@contextmanager
def _bar(description: str, note: Callable[[], str] = str) -> Iterator[Progress]:
    with progress() as bar:
        task = bar.add_task(description, note="", total=None)
        yield lambda passed, total: bar.update(task, completed=passed, total=total, note=note())
