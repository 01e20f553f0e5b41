"""What commands share on the terminal: where output goes, how it is spelled, how an error looks."""

import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from eventstore.errors import EventstoreError, RegistryError

out = Console(highlight=False)
"""Results: what a script would read."""
err = Console(stderr=True, highlight=False)
"""Progress, warnings and errors."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of text.")]


def print_json(value: Any) -> None:
    """One JSON document on standard output, indented for people if it is a terminal."""
    options = orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0)
    sys.stdout.buffer.write(orjson.dumps(value, option=options, default=str))
    sys.stdout.buffer.flush()


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table; a column whose name ends in `#` is right-aligned (the `#` is not shown).

    Cells are plain text, whatever they hold; a `rich.text.Text` keeps its style.
    """
    made = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column.removesuffix("#"), justify="right" if column.endswith("#") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in row))
    return made


def printable(text: str) -> str:
    """The text with control characters spelled out: what a producer wrote must not drive somebody's terminal."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def progress() -> Progress:
    """Bars on standard error; they vanish when standard error is not a terminal."""
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"), TimeElapsedColumn(), console=err, disable=not err.is_terminal,
    )  # fmt: skip


def complain(error: EventstoreError) -> None:
    err.print("error:", style="bold red", end=" ")
    if isinstance(error, RegistryError):
        err.print(f"{error.source} has {len(error.problems)} problem(s):", markup=False, soft_wrap=True)
        for problem in error.problems:
            err.print(f"  {problem}", markup=False, soft_wrap=True)
    else:
        err.print(str(error), markup=False, soft_wrap=True)
