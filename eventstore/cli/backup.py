"""`eventstore backup`: a cluster's table, and where to replay from once it is restored."""

import shlex
import shutil
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from eventstore.cli.console import AsJson, err, out
from eventstore.cli.marks import known_cluster, print_mark, safe_mark
from eventstore.config import Settings, load_settings
from eventstore.errors import ConfigurationError, QueryError, RefusedError, StoreError
from eventstore.registry import load_registry
from eventstore.replay.marks import Mark, MarkTable, mark_and_snapshot
from eventstore.tenancy import Cluster, Registry

if TYPE_CHECKING:  # the extra `local` may be absent, and every command imports this module
    from eventstore.local.backup import NodeBackups

ClusterName = Annotated[str, typer.Option("--cluster", metavar="NAME", help="The cluster, as the registry names it.")]
SCTOOL = "sctool"


def register(app: typer.Typer) -> None:
    app.command("backup")(backup)


def backup(
    *,
    cluster: ClusterName,
    name: Annotated[str | None, typer.Option(help="The mark's name. Default: the cluster and the time.")] = None,
    increment: Annotated[
        bool, typer.Option("--increment", help="Only what was flushed since the last snapshot (embedded stack).")
    ] = False,
    location: Annotated[
        str, typer.Option(metavar="LOCATION", help="Where ScyllaDB Manager puts backups, such as `s3:my-bucket`.")
    ] = "LOCATION",
    run: Annotated[bool, typer.Option("--run", help="ScyllaDB: really start the task, not only show it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Mark where the live group stands, and only then take a snapshot: the two together lose nothing.

    A cluster of the embedded stack is snapshot and copied to `local.backup_dir`. For any other this shows the task of
    ScyllaDB Manager and, with --run, starts it. Refused (exit 3) while diverted records wait for the cluster: they
    would be in neither the snapshot nor the replay.

    Examples:
    - `eventstore backup --cluster es30`
    - `eventstore backup --cluster es30 --increment`
    - `eventstore backup --cluster es30 --location s3:backups --run`
    """
    settings = load_settings()
    registry = load_registry(settings.registry)
    known_cluster(registry, cluster)
    if is_embedded_cluster(registry.clusters[cluster]):
        mark = _back_up_embedded(settings, registry, cluster, name, increment=increment)
    elif increment:
        raise QueryError(
            f"--increment: expected a cluster of the embedded stack, {cluster} is elsewhere; ScyllaDB Manager uploads "
            "only what is new anyway: back it up without --increment"
        )
    else:
        task = _sctool_task(registry.clusters[cluster], location)
        if not run:
            out.print(
                f"eventstore marks add --cluster {cluster}   # first: a restore needs a snapshot taken after it",
                markup=False,
                soft_wrap=True,
            )
            out.print(shlex.join(task), markup=False, soft_wrap=True)
            err.print("Nothing was started; --run does both in this order.")
            return
        mark = _back_up_scylladb(settings, cluster, name, task, location)
    print_mark(mark, as_json=as_json)


def _back_up_embedded(
    settings: Settings, registry: Registry, cluster: str, name: str | None, *, increment: bool
) -> Mark:
    backups = backups_of(settings, registry, cluster)
    marks = MarkTable(settings.kafka, settings.topics.marks)
    with err.status("marking where the group stands"):
        last = _last_snapshot(marks, cluster) if increment else None
        if last is not None:
            backups.check_unbroken(last)  # before a mark is kept that would have no increment
        mark = safe_mark(settings, cluster, name)
    with err.status(f"flushing and copying {cluster}"):

        def snapshot() -> str:
            if last is None:
                backups.take_snapshot(mark.name)
                return mark.name
            backups.take_increment(last, mark.name)
            return last

        return mark_and_snapshot(marks, mark, snapshot)


def _back_up_scylladb(settings: Settings, cluster: str, name: str | None, task: list[str], location: str) -> Mark:
    if location == "LOCATION":
        raise ConfigurationError("--location: expected where the backup goes, such as s3:my-bucket, got none; name it")
    if shutil.which(SCTOOL) is None:
        raise ConfigurationError(
            f"{SCTOOL}: expected it on the PATH, found none; run this where ScyllaDB Manager is installed, or leave out "
            "--run and do what it prints by hand"
        )
    mark = safe_mark(settings, cluster, name)
    return mark_and_snapshot(MarkTable(settings.kafka, settings.topics.marks), mark, _started(task))


def _started(task: list[str]) -> Callable[[], str]:
    def start() -> str:
        done = subprocess.run(task, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split())[:400]
            raise StoreError(
                f"{shlex.join(task)}: expected it to start a task, got exit code {done.returncode}: {said}; mend that, "
                "then back up again (the mark without a snapshot can be removed)"
            )
        return done.stdout.strip()  # the task's id, such as backup/0c1d...

    return start


def _sctool_task(cluster: Cluster, location: str) -> list[str]:
    return [SCTOOL, "backup", "--cluster", cluster.name, "--keyspace", cluster.keyspace, "--location", location]


def _last_snapshot(marks: MarkTable, cluster: str) -> str:
    taken = [mark.snapshot for mark in marks.read() if mark.cluster == cluster and mark.snapshot]
    if not taken:
        raise RefusedError(
            f"--increment: expected a snapshot of {cluster} to add to, there is none; run `eventstore backup --cluster "
            f"{cluster}` first"
        )
    return taken[-1]


def is_embedded_cluster(cluster: Cluster) -> bool:
    """Whether the embedded stack runs it, as far as that is installed."""
    try:
        from eventstore.local.layout import is_embedded  # noqa: PLC0415 — see TYPE_CHECKING above
    except ConfigurationError:  # without the extra there is no embedded stack
        return False
    return is_embedded(cluster)


def backups_of(settings: Settings, registry: Registry, cluster: str) -> "NodeBackups":
    """Backups of a cluster of the embedded stack."""
    from eventstore.local.backup import node_backups  # noqa: PLC0415 — see TYPE_CHECKING above

    return node_backups(settings, registry, registry.clusters[cluster])
