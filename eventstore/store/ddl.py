"""Keyspaces and tables as CQL writes them: read from our own statements and from what a server's DESCRIBE answers.

Both kinds of server print every option in force in that one grammar, while their schema tables differ. Pure.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Value: TypeAlias = str | int | float | bool | Mapping[str, Any] | Sequence[Any]
"""An option's value; UUIDs and the like are text."""

_TOKEN: Final = re.compile(
    r"""(?:\s|--[^\n]*(?:\n|$)|//[^\n]*(?:\n|$)|/\*.*?\*/)*
    (?P<token>'(?:[^']|'')*'|"(?:[^"]|"")*"|[(){}\[\]<>,:;=]|[^\s'"(){}\[\]<>,:;=]+|$)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Column:
    type: str
    static: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    columns: Mapping[str, Column]
    partition_key: tuple[str, ...]
    clustering: tuple[tuple[str, str], ...]
    """Clustering columns with `ASC` or `DESC`."""
    options: Mapping[str, Value]


def parse_table(statement: str) -> Table:
    """What a CREATE TABLE statement makes.

    Raises:
        ValueError: where the text is not such a statement.
    """
    return _Parser(statement).table()


def parse_keyspace_options(statement: str) -> dict[str, Value]:
    """The options of a CREATE KEYSPACE statement.

    Raises:
        ValueError: where the text is not such a statement.
    """
    parser = _Parser(statement)
    parser.created("KEYSPACE")
    return parser.options()[0]


def render(value: Value) -> str:
    """An option's value as CQL."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{render(key)}: {render(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(render, value)) + "]"
    return str(value)


def render_options(options: Mapping[str, Value]) -> str:
    return "\n    AND ".join(f"{name} = {render(value)}" for name, value in options.items())


class _Parser:
    def __init__(self, statement: str) -> None:
        self._statement = statement
        self._at = 0
        self._token = ""
        self._advance()

    def table(self) -> Table:
        self.created("TABLE")
        columns: dict[str, Column] = {}
        partition: tuple[str, ...] = ()
        clustering: tuple[str, ...] = ()
        self._expect("(")
        while True:
            if self._accept("PRIMARY"):
                partition, clustering = self._primary_key()
            else:
                name = self._name()
                columns[name] = Column(self._type(), static=self._accept("STATIC"))
                if self._accept("PRIMARY"):
                    self._expect("KEY")
                    partition = (name,)
            if not self._accept(","):
                break
        self._expect(")")
        options, order = self.options()
        return Table(columns, partition, tuple((name, order.get(name, "ASC")) for name in clustering), options)

    def created(self, what: str) -> None:
        self._expect("CREATE")
        self._expect(what)
        if self._accept("IF"):
            self._expect("NOT")
            self._expect("EXISTS")
        self._name()
        while self._token.upper() not in {"(", "WITH", ""}:  # the rest of a qualified name
            self._advance()

    def options(self) -> tuple[dict[str, Value], dict[str, str]]:
        """Options, and the order of clustering columns."""
        options: dict[str, Value] = {}
        order: dict[str, str] = {}
        more = self._accept("WITH")
        while more:
            name = self._name()
            if name == "clustering":
                order = self._clustering_order()
            elif name == "compact":
                self._expect("STORAGE")
            else:
                self._expect("=")
                options[name] = self._value()
            more = self._accept("AND")
        self._accept(";")
        self._expect("")
        return options, order

    def _clustering_order(self) -> dict[str, str]:
        self._expect("ORDER")
        self._expect("BY")
        self._expect("(")
        order: dict[str, str] = {}
        while True:
            name = self._name()
            order[name] = "DESC" if self._accept("DESC") else "ASC"
            self._accept("ASC")
            if not self._accept(","):
                break
        self._expect(")")
        return order

    def _primary_key(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        self._expect("KEY")
        self._expect("(")
        partition = self._names() if self._accept("(") else (self._name(),)
        clustering = self._names() if self._accept(",") else ()
        if not clustering:
            self._expect(")")
        return partition, clustering

    def _names(self) -> tuple[str, ...]:
        names = [self._name()]
        while self._accept(","):
            names.append(self._name())
        self._expect(")")
        return tuple(names)

    def _name(self) -> str:
        token = self._take()
        if not re.match(r'["\w]', token):
            raise self._unexpected("a name", token)
        return token[1:-1].replace('""', '"') if token.startswith('"') else token.lower()

    def _type(self) -> str:
        """A column's type, its parameters included: `map<text, frozen<list<int>>>`."""
        text = self._name()
        if self._accept("<"):
            inner = [self._type()]
            while self._accept(","):
                inner.append(self._type())
            self._expect(">")
            text += f"<{', '.join(inner)}>"
        return text

    def _value(self) -> Value:
        if self._accept("{"):
            return self._map()
        if self._accept("["):
            return self._list()
        token = self._take()
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if token.lower() in {"true", "false"}:
            return token.lower() == "true"
        for number in (int, float):
            try:
                return number(token)
            except ValueError:
                continue
        if not re.fullmatch(r"[\w.+-]+", token):
            raise self._unexpected("a value", token)
        return token

    def _map(self) -> dict[str, Value]:
        made: dict[str, Value] = {}
        while not self._accept("}"):
            key = self._value()
            self._expect(":")
            made[str(key)] = self._value()
            if not self._accept(","):
                self._expect("}")
                break
        return made

    def _list(self) -> list[Value]:
        made: list[Value] = []
        while not self._accept("]"):
            made.append(self._value())
            if not self._accept(","):
                self._expect("]")
                break
        return made

    def _advance(self) -> None:
        found = _TOKEN.match(self._statement, self._at)
        if found is None:
            raise ValueError(f"expected CQL, got {self._statement[self._at : self._at + 20]!r}")
        self._token, self._at = found["token"], found.end()

    def _take(self) -> str:
        token = self._token
        self._advance()
        return token

    def _accept(self, token: str) -> bool:
        if self._token.upper() != token:
            return False
        self._advance()
        return True

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise self._unexpected(token or "the end", self._token)

    def _unexpected(self, wanted: str, token: str) -> ValueError:
        return ValueError(f"expected {wanted}, got {token!r} before {self._statement[self._at : self._at + 20]!r}")
