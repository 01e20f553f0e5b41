"""`eventstore produce`: files into the event topic."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Self

import orjson
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from eventstore.cli.console import AsJson, err, out, print_json, printable
from eventstore.clock import now_micros
from eventstore.config import load_settings
from eventstore.errors import ConfigurationError, ExitCode
from eventstore.events.foreign import Constant, EnvelopeMapping
from eventstore.events.moment import parse_moment
from eventstore.events.outgoing import Preparation
from eventstore.events.validate import EPOCH, MICROSECOND, micros_of
from eventstore.stream.load import Load, Refused, as_it_is, newest_micros, readable_twice
from eventstore.stream.producer import RecordProducer
from eventstore.stream.source import STDIN

Files = Annotated[
    list[Path], typer.Argument(help="JSON lines or a JSON array; plain, gzip or zstd; `-` for standard input.")
]


def _path(name: str, what: str) -> Any:
    return typer.Option(name, metavar="PATH", help=f"Take the {what} from this field, e.g. `user` or `actor.login`.")


def _constant(name: str, what: str) -> Any:
    return typer.Option(name, metavar="TEXT", help=f"The same {what} for every record.")


def register(app: typer.Typer) -> None:
    app.command()(produce)


def produce(  # noqa: PLR0917 — typer's options
    files: Files,
    tenant: Annotated[str | None, _constant("--tenant", "tenant")] = None,
    tenant_from: Annotated[str | None, _path("--tenant-from", "tenant")] = None,
    tenant_strip: Annotated[
        str, typer.Option(metavar="CHARS", help="Characters to take off both ends of the tenant, e.g. `#`.")
    ] = "",
    uid: Annotated[str | None, _constant("--uid", "user")] = None,
    uid_from: Annotated[str | None, _path("--uid-from", "user")] = None,
    event: Annotated[str | None, _constant("--event", "event name")] = None,
    event_from: Annotated[str | None, _path("--event-from", "event name")] = None,
    time_from: Annotated[str | None, _path("--time-from", "time")] = None,
    id_from: Annotated[str | None, _path("--id-from", "message_id")] = None,
    properties_from: Annotated[
        str,
        typer.Option(metavar="PATH|rest", help="Take `properties` from this object; `rest`: all that is not mapped."),
    ] = "rest",
    shift_to: Annotated[
        str | None,
        typer.Option(metavar="now|TIME", help="Move all times so that the newest event is at this RFC 3339 time."),
    ] = None,
    *,
    topic: Annotated[str | None, typer.Option(help="Publish to this topic instead of the event topic.")] = None,
    refused_to: Annotated[
        Path | None, typer.Option("--refused", metavar="FILE", help="Write refused records there, as JSON lines.")
    ] = None,
    allow_refused: Annotated[
        bool, typer.Option("--allow-refused", help="Exit 0 although records were refused.")
    ] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Publish records exactly as they are, whatever is wrong with them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish events from files and wait until Kafka has confirmed every one.

    Records in our own envelope (tenant, uid, event, timestamp, message_id, properties, context) need no option. With
    any mapping option each field comes from its option or from the field of its own name. Times are RFC 3339 with a zone
    or numbers: below 10^11 seconds, below 10^14 milliseconds, else microseconds.

    A record without a message_id gets one from its bytes and its place in the file, so producing a file again doubles
    nothing. A shift changes times, and the time is part of a row: repeat a run with the time that `--shift-to now`
    printed, not with `now`.

    Exit codes: 0 every record confirmed; 1 a record was refused (unless --allow-refused) or not confirmed.

    Examples:
    - `eventstore produce events.jsonl.gz`
    - `curl -s https://example.com/export | eventstore produce - --tenant acme --uid-from actor.login --event-from type --time-from created_at --id-from id`
    - `eventstore produce edits.json.gz --tenant-from channel --tenant-strip '#' --uid-from user --time-from time --event edit --shift-to now`
    """
    settings = load_settings()
    for missing in (file for file in files if file != STDIN and not file.exists()):
        raise ConfigurationError(f"{missing}: expected a file, found none; mend the path")
    mapping = _mapping(
        {
            "tenant": _source("tenant", tenant, tenant_from),
            "uid": _source("uid", uid, uid_from),
            "event": _source("event", event, event_from),
            "timestamp": time_from,
            "message_id": id_from,
            "properties": None if properties_from == "rest" else properties_from,
            "tenant_strip": tenant_strip,
        }
    )
    if no_check and (mapping or shift_to):
        raise ConfigurationError(
            "--no-check publishes records as they are: expected no mapping and no --shift-to with it"
        )
    now = now_micros()
    preparation = Preparation(now, mapping, max_future_micros=round(settings.worker.max_future * 1_000_000))
    with ExitStack() as context:
        shifted_to = None
        if shift_to:
            shifted_to = _instant(shift_to, now)
            files = context.enter_context(readable_twice(files))
            with _Bar("looking for the newest event", files) as bar:
                shift = shifted_to - newest_micros(files, preparation, bar.update)
            preparation = replace(preparation, shift_micros=shift)
        load = Load(
            RecordProducer(settings.kafka, settings.producer, topic or settings.topics.events),
            as_it_is if no_check else preparation.prepare,
            context.enter_context(_refused_file(refused_to)) if refused_to else _nowhere,
        )
        try:
            _run(load, files)
        finally:
            _report(load, shifted_to, as_json=as_json)
    if load.refused and not allow_refused:
        raise typer.Exit(ExitCode.FAILED)


def _source(name: str, constant: str | None, path: str | None) -> str | Constant | None:
    if constant is None:
        return path
    if path is not None:
        raise ConfigurationError(f"expected either --{name} or --{name}-from, got both")
    if not constant.isprintable():
        raise ConfigurationError(f"--{name}: expected printable text, got {constant!r}")
    return Constant(constant)


def _mapping(given: dict[str, Any]) -> EnvelopeMapping | None:
    """None if nothing is to be mapped: then records must be envelopes."""
    options = {name: value for name, value in given.items() if value}
    return EnvelopeMapping(**options) if options else None


def _instant(text: str, now_micros: int) -> int:
    if text == "now":
        return now_micros // 1_000 * 1_000  # a millisecond is what we print
    try:
        return micros_of(parse_moment(text))
    except ValueError as error:
        raise ConfigurationError(f"--shift-to: {error}, or `now`") from None


def _nowhere(_: Refused) -> None:
    """Refused records are only counted."""


@contextmanager
def _refused_file(path: Path) -> Iterator[Callable[[Refused], None]]:
    try:
        file = path.open("wb")
    except OSError as error:
        raise ConfigurationError(f"--refused {path}: expected a file that can be written: {error.strerror}") from error
    with file:
        yield lambda refused: _write(file, refused)


def _write(file: BinaryIO, refused: Refused) -> None:
    file.write(orjson.dumps(_as_dict(refused) | {"record": refused.record.decode(errors="backslashreplace")}) + b"\n")


def _as_dict(refused: Refused) -> dict[str, Any]:
    return {
        "file": refused.file,
        "position": refused.position,
        "reason": refused.rejected.reason.value,
        "detail": refused.rejected.detail,
    }


class _Bar:
    """Bytes read of all files together; gone when standard error is not a terminal."""

    def __init__(self, description: str, files: Sequence[Path]) -> None:
        self._read = dict.fromkeys(files, 0)
        sizes = [file.stat().st_size if file.is_file() else None for file in files]
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
            TextColumn("{task.fields[note]}"), TimeElapsedColumn(), console=err, disable=not err.is_terminal,
        )  # fmt: skip
        total = None if None in sizes else sum(size or 0 for size in sizes)
        self._task = self._progress.add_task(description, total=total, note="")

    def update(self, file: Path, read: int, note: str = "") -> None:
        self._read[file] = read
        self._progress.update(self._task, completed=sum(self._read.values()), note=note)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _run(load: Load, files: Sequence[Path]) -> None:
    started = time.monotonic()
    with _Bar("publishing", files) as bar:

        def show(file: Path, read: int) -> None:
            rate = load.published / max(time.monotonic() - started, 0.001)
            bar.update(file, read, f"{load.published:,} events, {rate:,.0f}/s, {load.refused:,} refused")

        load.on_progress = show
        load.run(files)


def _report(load: Load, shifted_to: int | None, *, as_json: bool) -> None:
    confirmed = load.producer.confirmed
    shifted = None if shifted_to is None else (EPOCH + shifted_to * MICROSECOND).isoformat().replace("+00:00", "Z")
    if as_json:
        print_json({
            "read": load.read, "published": load.published, "confirmed": confirmed, "refused": load.refused,
            "shifted_to": shifted, "first_refused": [_as_dict(refused) for refused in load.first_refused],
        })  # fmt: skip
        return
    out.print(
        f"{load.read:,} read, {confirmed:,} confirmed by Kafka in {load.producer.topic}, {load.refused:,} refused"
    )
    for refused in load.first_refused:
        text = f"  {refused.file}:{refused.position}: {refused.rejected.reason}: {refused.rejected.detail}"
        err.print(printable(text), markup=False, soft_wrap=True)
    if load.refused > len(load.first_refused):
        err.print(f"  and {load.refused - len(load.first_refused):,} more; write them all with --refused FILE")
    if shifted:
        out.print(
            f"the newest event is at {shifted}: to run this again without new rows, use --shift-to {shifted}",
            soft_wrap=True,
        )
