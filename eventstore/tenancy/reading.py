"""Takes values out of a document's nodes and collects every fault instead of stopping at the first."""

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from eventstore.errors import Problem
from eventstore.events.moment import parse_moment
from eventstore.events.validate import micros_of
from eventstore.tenancy.durations import format_duration, parse_duration
from eventstore.tenancy.nodes import Items, Node, Scalar, Section

_SHOWN: Final = 60
"""Characters of a wrong value that a message quotes."""


@dataclass(slots=True)
class DocumentReader:
    """Whatever does not fit becomes a Problem, and None (or nothing) is given instead of a value."""

    problems: list[Problem] = field(default_factory=list)

    def complain(self, node: Node, expected: str) -> None:
        self.problems.append(Problem(node.path, expected, node.line))

    def section(self, node: Node) -> dict[str, Node]:
        """The entries of a mapping whose keys the writer chose."""
        if isinstance(node, Section):
            return node.entries
        self.complain(node, f"expected a mapping, got {described(node)}")
        return {}

    def fields(self, node: Node, known: Collection[str], required: Iterable[str] = ()) -> dict[str, Node]:
        """The entries of a mapping whose keys are ours; entries without a value count as absent."""
        entries = self.section(node)
        for key, entry in entries.items():
            if key not in known:
                self.complain(entry, f"expected one of {', '.join(known)}, got the key {key!r}{_meant(key, known)}")
        present = {key: entry for key, entry in entries.items() if not (isinstance(entry, Scalar) and entry.is_null)}
        if isinstance(node, Section):
            for key in required:
                if key not in present:
                    self.complain(node, f"expected the key {key!r}, which is missing or empty")
        return present

    def items(self, node: Node, what: str) -> Sequence[Node]:
        if isinstance(node, Items) and node.items:
            return node.items
        self.complain(node, f"expected a list of {what}, got {described(node)}")
        return ()

    def text(self, node: Node, what: str, pattern: re.Pattern[str]) -> str | None:
        if isinstance(node, Scalar) and not node.is_null and pattern.fullmatch(node.text):
            return node.text
        self.complain(node, f"expected {what}, got {described(node)}")
        return None

    def flag(self, node: Node) -> bool | None:
        if isinstance(node, Scalar) and not node.quoted and node.text in {"true", "false"}:
            return node.text == "true"
        self.complain(node, f"expected true or false, got {described(node)}")
        return None

    def whole(self, node: Node, least: int, most: int) -> int | None:
        if isinstance(node, Scalar) and re.fullmatch("[0-9]{1,9}", node.text) and least <= int(node.text) <= most:
            return int(node.text)
        self.complain(node, f"expected a whole number from {least} to {most}, got {described(node)}")
        return None

    def duration(self, node: Node, least: int, most: int) -> int | None:
        """Seconds between `least` and `most`."""
        try:
            seconds = parse_duration(node.text if isinstance(node, Scalar) else "")
        except ValueError:
            self.complain(node, f"expected a duration such as 15d or 12h, got {described(node)}")
            return None
        if least <= seconds <= most:
            return seconds
        self.complain(node, f"expected {format_duration(least)} to {format_duration(most)}, got {described(node)}")
        return None

    def instant(self, node: Node) -> int | None:
        """Milliseconds since the epoch."""
        if isinstance(node, Scalar):
            with suppress(ValueError):
                if (millis := micros_of(parse_moment(node.text)) // 1_000) > 0:
                    return millis
        self.complain(node, f"expected a time after 1970 such as 2027-01-01T00:00:00Z, got {described(node)}")
        return None


def described(node: Node) -> str:
    """What came, for a message: short, quoted, on one line."""
    if isinstance(node, Scalar):
        if node.is_null:
            return "nothing"
        return repr(node.text if len(node.text) <= _SHOWN else node.text[:_SHOWN] + "…")
    if isinstance(node, Items):
        return "a list" if node.items else "an empty list"
    return "a mapping"


def _meant(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
