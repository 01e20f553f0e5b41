"""A YAML document as nodes that know where they stand.

The tree is built from parser events rather than by PyYAML's composer: that one forgets duplicate keys, reads `no` as
false and `1:30` as 90, and its C version overruns the stack on a deeply nested document.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import yaml
from msgspec import Struct

from eventstore.errors import Problem

MAX_DEPTH: Final = 16
ROOT: Final = "document"
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})


class Node(Struct, frozen=True):
    path: str
    """Where it stands: `tiers.t30.buckets[1]`."""
    line: int
    """Where it, or the key that names it, begins; the first line is 1."""


class Scalar(Node, frozen=True):
    text: str
    quoted: bool

    @property
    def is_null(self) -> bool:
        return not self.quoted and self.text in _NULLS


class Items(Node, frozen=True):
    items: tuple[Node, ...]


class Section(Node, frozen=True):
    entries: dict[str, Node]


def parse_nodes(content: bytes) -> tuple[Node | None, list[Problem]]:
    """The document's root, None if it cannot be read as one, and every fault on the way: duplicate keys, tags."""
    builder = _Builder()
    try:
        text = content.decode("utf-8-sig")
        events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # the C loader is 10x faster
        return builder.document(events), builder.problems
    except _UnreadableError as unreadable:
        problem = unreadable.problem
    except UnicodeDecodeError as error:
        problem = Problem(ROOT, f"expected UTF-8, got {error.reason}", content.count(b"\n", 0, error.start) + 1)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(filter(None, (error.context, error.problem)))
        problem = Problem(ROOT, f"expected YAML: {' '.join(said.split())}", mark.line + 1 if mark else None)
    except yaml.YAMLError as error:  # a character that YAML forbids
        problem = Problem(ROOT, f"expected YAML: {' '.join(str(error).split())}")
    return None, [*builder.problems, problem]


class _UnreadableError(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem


@dataclass(slots=True)
class _Builder:
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, Node] = field(default_factory=dict)

    def document(self, events: Iterator[yaml.Event]) -> Node:
        next(events)  # the stream's start
        if isinstance(next(events), yaml.StreamEndEvent):
            raise _UnreadableError(Problem(ROOT, "expected a registry, got an empty document", 1))
        first = next(events)
        root = self._node(events, first, "", 0, _line(first))
        next(events)  # the document's end
        end = next(events)
        if not isinstance(end, yaml.StreamEndEvent):
            raise _UnreadableError(Problem(ROOT, "expected one document, got several", _line(end)))
        return root

    def _node(self, events: Iterator[yaml.Event], event: yaml.Event, path: str, depth: int, line: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(event, path, line)
        if depth > MAX_DEPTH:
            raise _UnreadableError(Problem(path, f"expected at most {MAX_DEPTH} levels of nesting", line))
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)  # noqa: S101 — YAML's grammar
        if event.tag not in (None, "!"):
            self.problems.append(Problem(path or ROOT, f"expected a value without a YAML tag, got {event.tag}", line))
        made: Node
        if isinstance(event, yaml.ScalarEvent):
            made = Scalar(path or ROOT, line, event.value, quoted=not event.implicit[0])
        elif isinstance(event, yaml.SequenceStartEvent):
            made = Items(path or ROOT, line, tuple(self._sequence(events, path, depth)))
        else:
            made = Section(path or ROOT, line, self._mapping(events, path, depth))
        if event.anchor:
            self.anchors[event.anchor] = made
        return made

    def _aliased(self, event: yaml.AliasEvent, path: str, line: int) -> Node:
        if event.anchor in self.anchors:
            return self.anchors[event.anchor]
        raise _UnreadableError(Problem(path or ROOT, f"expected an anchor &{event.anchor} above its alias", line))

    def _sequence(self, events: Iterator[yaml.Event], path: str, depth: int) -> Iterator[Node]:
        index = 0
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            yield self._node(events, event, f"{path}[{index}]", depth + 1, _line(event))
            index += 1

    def _mapping(self, events: Iterator[yaml.Event], path: str, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            line = _line(event)
            key = self._node(events, event, path, depth + 1, line)
            name = key.text if isinstance(key, Scalar) else ""
            if not isinstance(key, Scalar):
                self.problems.append(Problem(path or ROOT, "expected a name as the key of a mapping", line))
            shown = name if name.isprintable() else repr(name)  # a message is one line
            below = f"{path}.{shown}" if path else shown
            value = self._node(events, next(events), below, depth + 1, line)
            if name in entries:
                told = f"expected each key once, but it stands on line {entries[name].line} too"
                self.problems.append(Problem(below, told, line))
            else:
                entries[name] = value
        return entries


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1
