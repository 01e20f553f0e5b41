"""`eventstore gateway`: the HTTP edge."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from eventstore.config import load_settings
from eventstore.logs import setup_logging


class Only(StrEnum):
    COLLECT = "collect"
    READ = "read"


def register(app: typer.Typer) -> None:
    @app.command()
    def gateway(
        only: Annotated[
            Only | None, typer.Option(help="Only take events in, or only answer questions: they scale differently.")
        ] = None,
    ) -> None:
        """Serve HTTP: events in (Segment-compatible), timelines out, one user live.

        Runs until SIGTERM or Ctrl-C; then it takes no more requests, ends those that are open, and waits for Kafka's
        confirmation of every event. Keys are made with `eventstore keys create`.

        Examples:
        - `eventstore gateway`
        - `eventstore gateway --only collect`
        """
        # granian, the drivers and uvloop load only here: the other commands start quickly without them
        from workers import gateway as process  # noqa: PLC0415

        settings = load_settings()
        setup_logging(settings.log)
        parts = [process.Part(only.value)] if only else list(process.Part)
        sys.exit(process.main(settings, parts))
