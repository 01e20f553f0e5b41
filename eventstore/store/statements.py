"""The CQL we run, by name: each statement is a file of `schemas/cql`."""

from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template


@cache
def statement(name: str) -> str:
    """The text of `schemas/cql/<name>.cql`."""
    return (_schemas() / "cql" / f"{name}.cql").read_text(encoding="utf-8").strip()


def statement_in(keyspace: str, name: str) -> str:
    """A statement whose table is named with its keyspace: it means the same on every connection."""
    return Template(statement(name)).substitute(keyspace=keyspace)


def _schemas() -> Traversable:
    """Packed beside the library in a wheel; at the top of a source tree."""
    package = files("eventstore")
    packed = package / "_schemas"
    return packed if packed.is_dir() else package / ".." / "schemas"
