"""`eventstore demo`: the main job in one go. Each scene is a command that anybody can type, shown before it runs."""

import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

import orjson
import typer

from eventstore.cli.console import err, out, progress, table
from eventstore.config import Settings, load_settings
from eventstore.demo import gateway
from eventstore.demo.broken import Broken, broken_records
from eventstore.demo.census import Census, take_census
from eventstore.demo.ingest import Ingested, ingest
from eventstore.demo.scene import Scene
from eventstore.errors import EventstoreError, ExitCode
from eventstore.registry import load_registry
from eventstore.stream.dead_letter import DeadLetter
from eventstore.stream.dead_letter_log import DeadLetterLog
from eventstore.stream.lag import GroupLag
from eventstore.stream.producer import RecordProducer

Folder = Annotated[Path, typer.Option("--folder", help="Where the demo keeps everything it makes.")]
DEFAULT: Final = Path(".demo")
SHOWN_ROWS: Final = 8
KEPT: Final = (
    "EVENTSTORE_LOCAL__CACHE_DIR",
    "EVENTSTORE_LOCAL__MAVEN_REPOSITORY",
    "EVENTSTORE_LOCAL__KAFKA_MEMORY_MB",
    "EVENTSTORE_LOCAL__CASSANDRA_MEMORY_MB",
    "EVENTSTORE_LOCAL__START_TIMEOUT",
)
"""Settings of this machine rather than of somebody's servers."""

demo = typer.Typer(name="demo", help="The main job on the embedded stack, with real data.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(demo)


@demo.command()
def up(folder: Folder = DEFAULT) -> None:
    """Start three clusters and Kafka, ingest 39,244 Wikipedia edits, show what became of them.

    Run it again to see that nothing doubles. The servers, and a gateway with a page that shows one user live, go on
    running until `eventstore demo down`.

    Examples:
    - `eventstore demo up`
    - `eventstore demo up --folder my-demo`
    """
    started = time.monotonic()
    scene = Scene(folder.absolute())
    scene.lay()
    _only_here(scene)
    settings = load_settings()
    registry = load_registry(settings.registry)
    _command("local", "up")
    _command("schema", "apply")
    _command("topics", "apply")
    before = take_census(settings, registry)
    edits, broken, first_offsets = _produce(scene, settings)
    ingested = _ingest(settings, scene.worker_log)
    _title("what became of them")
    after = take_census(settings, registry)
    letters = _letters_since(settings, first_offsets)
    right = _report(Outcome(edits, before, after, ingested, letters, broken))
    _title("one user's past")
    tenant, uid = after.busiest()
    _command("timeline", tenant, uid, "--last", "30d", "--limit", str(SHOWN_ROWS))
    _serve_page(scene, settings, tenant, uid)
    _what_next(folder, tenant, uid)
    out.print(f"\n{'Done' if right else 'NOT AS IT MUST BE'}, in {time.monotonic() - started:.0f} s.")
    raise typer.Exit(ExitCode.DONE if right else ExitCode.FAILED)


@demo.command()
def down(folder: Folder = DEFAULT) -> None:
    """Stop the demo's servers and delete everything it has made.

    Examples:
    - `eventstore demo down`
    """
    scene = Scene(folder.absolute())
    if not scene.is_laid():
        out.print(f"no demo in {folder}")
        return
    _only_here(scene)
    gateway.stop(scene.gateway)
    _command("local", "down")
    scene.clear()
    out.print(f"deleted {folder}")


def _only_here(scene: Scene) -> None:
    """Have us and the commands we run see the demo's settings only: never somebody's own Kafka or clusters."""
    for name in [name for name in os.environ if name.startswith("EVENTSTORE_") and name not in KEPT]:
        del os.environ[name]
    os.environ["EVENTSTORE_CONFIG"] = str(scene.config)


@dataclass(frozen=True, slots=True)
class Outcome:
    edits: int
    """Events that Kafka confirmed."""
    before: Census
    after: Census
    ingested: Ingested
    letters: Sequence[DeadLetter]
    """Of this run."""
    broken: Sequence[Broken]

    @property
    def expected_rows(self) -> int:
        """Every edit is a distinct event, and the same in each run."""
        return self.edits

    def holds(self) -> bool:
        """Every event once, on its tenant's cluster; every broken record in the dead letters, with its reason."""
        reasons = Counter(letter.reason for letter in self.letters)
        return (
            self.after.rows == self.expected_rows
            and self.after.foreign == 0
            and reasons == Counter(record.reason.value for record in self.broken)
        )


def _produce(scene: Scene, settings: Settings) -> tuple[int, Sequence[Broken], dict[int, int]]:
    """(confirmed edits, broken records, offsets of the event topic before them)."""
    with GroupLag(settings.kafka, settings.worker.group, settings.topics.events) as group:
        first_offsets = group.read().end
    shift_to = scene.shift_to().isoformat().replace("+00:00", "Z")
    shown = _shown("produce", os.path.relpath(scene.edits), "--tenant-from", "channel", "--tenant-strip", "#",
                   "--uid-from", "user", "--time-from", "time", "--event", "page_edited", "--shift-to", shift_to)  # fmt: skip
    answer = subprocess.run([*shown, "--json"], stdout=subprocess.PIPE, check=False)
    if answer.returncode != 0:
        raise EventstoreError(f"`eventstore produce` ended with exit code {answer.returncode}")
    confirmed: int = orjson.loads(answer.stdout)["confirmed"]
    broken = broken_records(scene.shift_to())
    producer = RecordProducer(settings.kafka, settings.producer, settings.topics.events)
    for record in broken:
        producer.publish(record.key, record.value)
    producer.confirm()
    out.print(f"{confirmed:,} edits and {len(broken)} broken records confirmed by Kafka")
    return confirmed, broken, first_offsets


def _ingest(settings: Settings, log: Path) -> Ingested:
    _shown("worker")
    with progress() as bars:
        task = bars.add_task("ingesting", total=None, note="records")
        totals: list[int] = []

        def show(lag: int) -> None:
            totals.append(lag)
            bars.update(task, total=totals[0], completed=totals[0] - lag)

        return ingest(settings, log, show)


def _letters_since(settings: Settings, first_offsets: dict[int, int]) -> list[DeadLetter]:
    """The dead letters of what was published after these offsets."""
    return [
        letter
        for letter in DeadLetterLog(settings.kafka, settings.topics.dead_letters).scan()
        if isinstance(letter, DeadLetter) and letter.source.offset >= first_offsets.get(letter.source.partition, 0)
    ]


def _report(outcome: Outcome) -> bool:
    census = outcome.after
    rows = [
        (c.tier.cluster.name, f"{c.tier.retention_seconds // 86_400} d", c.tenants, f"{c.rows:,}", c.foreign)
        for c in census.clusters
    ]
    total = ("all", "", sum(c.tenants for c in census.clusters), f"{census.rows:,}", census.foreign)
    out.print(table("", ("cluster", "retention#", "tenants#", "rows#", "rows of others' tenants#"), [*rows, total]))
    rejected = [(f"{x.source}", x.reason, x.detail[:90]) for x in outcome.letters]
    out.print(table("rejected, in the dead-letter topic", ("record", "reason", "detail"), rejected))
    work = outcome.ingested
    out.print(
        f"in: {work.records:,} records   rows: {census.rows:,}   rejected: {len(outcome.letters)}   "
        f"{work.records_per_second:,} records/s   {work.cpu_us_per_record:.1f} us of the worker's CPU a record"
    )
    if outcome.before.rows:
        out.print(
            f"rows before this run: {outcome.before.rows:,}; after it: {census.rows:,}; "
            f"the same {outcome.edits:,} events came again and made {census.rows - outcome.before.rows:,} new rows"
        )
    if not (right := outcome.holds()):
        err.print(
            f"expected {outcome.expected_rows:,} rows, none of them another tenant's, and {len(outcome.broken)} rejects",
            style="bold red",
        )
    return right


def _serve_page(scene: Scene, settings: Settings, tenant: str, uid: str) -> None:
    _title("the same user, live, in a browser")
    try:
        keys = gateway.keys_of(tenant, scene.keys, gateway.created)
        out.print(f"$ {_executable()} gateway", style="cyan", markup=False)
        gateway.start(scene.gateway, settings.gateway)
    except EventstoreError as error:  # the main job is done all the same
        err.print(str(error), style="bold red", markup=False)
        return
    base = f"http://{settings.gateway.host}:{settings.gateway.port}"
    event = {"userId": uid, "event": "hello", "properties": {"from": "the shell"}}
    for line in (
        f"open      {base}/ui#{quote(tenant, safe='')}/{quote(uid, safe='')}",
        f"read key  {keys.read}",
        "then send an event and see it arrive:",
        f"curl -u {keys.write}: {base}/v1/track -d {shlex.quote(orjson.dumps(event).decode())}",
    ):
        out.print(f"  {line}", markup=False, soft_wrap=True, highlight=False)


def _what_next(folder: Path, tenant: str, uid: str) -> None:
    command = _executable()
    user = shlex.join((tenant, uid))
    _title("what to try next")
    for line in (
        f"export EVENTSTORE_CONFIG={shlex.quote(str(folder / 'eventstore.toml'))}",
        f"{command} timeline {user} --last 7d --count",
        f"{command} timeline {user} --latest page_edited --json",
        f"{command} dlq list",
        f"{command} dlq list --where reason=schema",
        f"{command} tenants show {shlex.quote(tenant)}",
        f"{command} schema check",
        f"{command} local status",
        "make demo        # again: nothing doubles",
        "make demo-down   # stops the servers and deletes the demo",
    ):
        out.print(f"  {line}", markup=False, soft_wrap=True)


def _title(text: str) -> None:
    out.rule(f"[bold]{text}[/bold]", align="left")


def _command(*words: str) -> None:
    """Show a command of ours and run it; its output is the demo's.

    Raises:
        EventstoreError: it failed; it has said why.
    """
    code = subprocess.run(_shown(*words), check=False).returncode
    if code != 0:
        raise EventstoreError(f"`eventstore {shlex.join(words)}` ended with exit code {code}; see its message above")


def _shown(*words: str) -> list[str]:
    _title(words[0] if len(words) == 1 else " ".join(words[:2]))
    out.print(f"$ {_executable()} {shlex.join(words)}", style="cyan", markup=False, soft_wrap=True)
    return [sys.executable, "-m", "eventstore", *words]


def _executable() -> str:
    """How the person at this terminal would call us."""
    called = Path(sys.argv[0])
    return "eventstore" if called.name == "__main__.py" else os.path.relpath(called)
