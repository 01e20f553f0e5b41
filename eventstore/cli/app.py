"""The `eventstore` command: one module per command group, one way to fail.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused for safety.
"""

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer

from eventstore.cli.console import complain
from eventstore.errors import EventstoreError, ExitCode
from eventstore.logs import only_warnings

COMMANDS = (
    "local",
    "tenants",
    "schema",
    "topics",
    "produce",
    "worker",
    "circuits",
    "dlq",
    "timeline",
    "gateway",
    "keys",
    "replay",
    "marks",
    "backup",
    "restore",
    "erase",
    "erasures",
    "settings",
    "demo",
)
"""Each is a module of this package with `register(app)`; the order is that of the help page."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"eventstore {version('eventstore')}")
        raise typer.Exit


def _root(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    only_warnings()  # until a command that serves says otherwise


def build(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """A command line with these commands only: importing all of them takes longer than most need to run."""
    app = typer.Typer(
        name="eventstore",
        help="Short-term memory of every user's actions: Kafka in, ScyllaDB by retention tier, a user's timeline out.",
        epilog="Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused for safety.",
        callback=_root,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    for name in commands:
        register: Callable[[typer.Typer], None] = import_module(f"eventstore.cli.{name}").register
        register(app)
    return app


def main() -> None:
    """Run the command line; errors that an operator can act on are one line, never a stack trace."""
    try:
        called = sys.argv[1:2]
        build(called if set(called) & set(COMMANDS) else COMMANDS)()
    except EventstoreError as error:
        complain(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `eventstore timeline ... | head`
        sys.stderr.close()
        sys.exit(ExitCode.DONE)
