"""`eventstore worker`: ingest events."""

import sys
from typing import Annotated

import typer

from eventstore.config import load_settings
from eventstore.logs import setup_logging


def register(app: typer.Typer) -> None:
    @app.command()
    def worker(
        processes: Annotated[
            int,
            typer.Option(min=1, help="Worker processes on this host, each a group member, restarted with back-off."),
        ] = 1,
    ) -> None:
        """Ingest events: Kafka to the cluster of each tenant's retention tier.

        Runs until SIGTERM or Ctrl-C, then finishes what it has begun within a bounded time and commits. Exits with 1,
        without committing anything unfinished, on what it cannot handle: whoever supervises it starts it again. Exits
        with 3 when most of what comes is rejected: a producer or the registry broke, see `worker.halt_reject_share`.
        SIGHUP reloads the tenant registry.

        A cluster that is away ends nothing: its records are diverted to its retry topic and stored when it is back, see
        `eventstore circuits`. Topics of the worker's own (retry topics, tables) are created when they are missing.

        Examples:
        - `eventstore worker`
        - `eventstore worker --processes 4`
        - `EVENTSTORE_WORKER__GROUP=shadow eventstore worker`
        """
        # Faust, the drivers and uvloop load only here: the other commands start quickly without them
        from workers import ingest, supervisor  # noqa: PLC0415

        settings = load_settings()
        setup_logging(settings.log)
        sys.exit(ingest.main(settings) if processes == 1 else supervisor.Supervisor(settings, processes).run())
