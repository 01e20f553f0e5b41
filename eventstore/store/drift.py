"""What separates a cluster's schema from the one its tier wants, and which of it may be changed. Pure.

The rules, for a table that may hold rows:

- created, added, altered: what is missing, and options that change only how or how long new rows are kept;
- kept: what does no harm and cannot be undone without loss or is not ours: a column we do not know, vnodes for tablets;
- refused: the key and the types of columns (rows would have to be written anew), fewer or more replicas (that needs a
  repair at the right moment), a shorter retention (new events would be gone before their tier's time, and cannot be
  had back), bucket strategies that contradict those under which rows were written (readers would look elsewhere).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain
from typing import Final

from eventstore.store.ddl import Table, Value, render
from eventstore.store.dialect import recorded_history

_FILLED_IN: Final = frozenset({"compaction", "tombstone_gc"})
"""Maps to which servers and operators add entries of their own."""


class Action(StrEnum):
    CREATE = "create"
    ADD = "add"
    ALTER = "alter"
    KEEP = "keep"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: `column event`, `option default_time_to_live`."""

    subject: str
    """What differs; what a table has or lacks is told with `table`."""
    action: Action
    wanted: str
    found: str
    why: str = ""
    """For what is kept or refused: the reason and the mend."""
    cql: str = ""
    """The part of a statement that makes the change; a whole statement for `create`."""
    table: str = ""
    """Whose column, key or option it is; empty: it is of the keyspace, or a whole table."""

    @property
    def place(self) -> str:
        return f"{self.subject} of {self.table}" if self.table else self.subject


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of rows that a table holds."""

    any: bool
    free_from_ms: int
    """From this event time on none have been written."""


def keyspace_changes(wanted: Mapping[str, Value], found: Mapping[str, Value], datacenter: str) -> Iterator[Change]:
    """Differences of a keyspace that exists. Replicas in other datacenters are the operator's."""
    yield from _replication(wanted["replication"], found.get("replication"), datacenter)
    if found.get("durable_writes") is False:
        yield Change("keyspace option durable_writes", Action.ALTER, "true", "false", cql="durable_writes = true")
    if "tablets" in wanted and _entry(found.get("tablets"), "enabled") != "true":
        why = "tablets can be had only when a keyspace is created; it works without them"
        yield Change("keyspace option tablets", Action.KEEP, "enabled", "not enabled", why)


def table_changes(name: str, wanted: Table, found: Table, rows: Rows) -> Iterator[Change]:
    """Differences of a table that exists."""
    options = (
        _option_changes(option, value, found.options.get(option, ""), rows) for option, value in wanted.options.items()
    )
    for change in chain(_key_changes(wanted, found), _column_changes(wanted, found), *options):
        yield replace(change, table=name)


def statements(keyspace: str, changes: Sequence[Change]) -> list[str]:
    """The DDL that makes the changes, in the order to run it; one ALTER for all options of a table."""
    made = [change.cql for change in changes if change.action is Action.CREATE]
    made += [
        f"ALTER TABLE {keyspace}.{change.table} ADD {change.cql}" for change in changes if change.action is Action.ADD
    ]
    options: dict[str, list[str]] = {}
    for change in changes:
        if change.action is Action.ALTER:
            altered = f"TABLE {keyspace}.{change.table}" if change.table else f"KEYSPACE {keyspace}"
            options.setdefault(altered, []).append(change.cql)
    return made + [f"ALTER {altered} WITH {' AND '.join(each)}" for altered, each in options.items()]


def _replication(wanted: Value, found: Value | None, datacenter: str) -> Iterator[Change]:
    replicas, there = _entry(wanted, datacenter), _entry(found, datacenter)
    if _entry(found, "class") != "NetworkTopologyStrategy" or there != replicas:
        why = "readers could miss rows until a repair: ALTER KEYSPACE and repair by hand, or mend `replication`"
        yield Change(
            "keyspace option replication",
            Action.REFUSE,
            f"NetworkTopologyStrategy, {datacenter}: {replicas}",
            render(found) if found else "",
            why,
        )


def _key_changes(wanted: Table, found: Table) -> Iterator[Change]:
    why = "rows cannot be moved to another key in place: use another keyspace, and replay into it"
    if found.partition_key != wanted.partition_key:
        wished, there = (f"({', '.join(table.partition_key)})" for table in (wanted, found))
        yield Change("partition key", Action.REFUSE, wished, there, why)
    if found.clustering != wanted.clustering:
        wished, there = (", ".join(" ".join(column) for column in table.clustering) for table in (wanted, found))
        yield Change("clustering columns", Action.REFUSE, wished, there, why)


def _column_changes(wanted: Table, found: Table) -> Iterator[Change]:
    key = {*wanted.partition_key, *(name for name, _ in wanted.clustering)}
    for name, column in wanted.columns.items():
        there = found.columns.get(name)
        if there is None and name not in key:
            yield Change(f"column {name}", Action.ADD, column.type, "missing", cql=f"{name} {column.type}")
        elif there is not None and there != column:
            why = "a column's type cannot be changed in place: use another keyspace, and replay into it"
            came = there.type + (" static" if there.static else "")
            yield Change(f"column {name}", Action.REFUSE, column.type, came, why)
    for name, column in found.columns.items():
        if name not in wanted.columns:
            why = "never dropped: it may hold data of another version"
            yield Change(f"column {name}", Action.KEEP, "missing", column.type, why)


def _option_changes(name: str, wanted: Value, found: Value, rows: Rows) -> Iterator[Change]:
    if _same(name, wanted, found):
        return
    subject, texts = f"option {name}", _differing(name, wanted, found)
    if name == "comment" and (why := _history_refusal(wanted, found, rows)):
        yield Change(subject, Action.REFUSE, *texts, why)
    elif name == "default_time_to_live" and _is_shorter(wanted, found) and rows.any:
        why = (
            "new events would be gone before the time their tier has promised: make a new tier of the shorter "
            "retention; if you mean it, ALTER TABLE by hand and apply again"
        )
        yield Change(subject, Action.REFUSE, *texts, why)
    else:
        yield Change(subject, Action.ALTER, *texts, cql=f"{name} = {render(_merged(name, wanted, found))}")


def _history_refusal(wanted: Value, found: Value, rows: Rows) -> str | None:
    if not rows.any:
        return None
    older, newer = recorded_history(found), recorded_history(wanted)
    by_hand = f"ALTER TABLE … WITH comment = {render(wanted)}"
    if older is None or newer is None:
        return (
            "rows were written under bucket strategies that the table's comment does not record; if they are those of "
            f"the registry, say so: {by_hand}"
        )
    told = newer.contradiction(older, rows.free_from_ms)
    if told and newer.extends(older):
        return f"{told}; or, if all workers had it in force before it began, record it: {by_hand}"
    return told


def _is_shorter(wanted: Value, found: Value) -> bool:
    """Whether rows would live shorter; 0 means for ever."""
    there = found if isinstance(found, int) else 0
    return isinstance(wanted, int) and (there == 0 or wanted < there)


def _same(name: str, wanted: Value, found: Value) -> bool:
    if name in _FILLED_IN and isinstance(wanted, Mapping):
        return all(_entry(found, key) == _text(value) for key, value in wanted.items())
    return _text(wanted) == _text(found)


def _differing(name: str, wanted: Value, found: Value) -> tuple[str, str]:
    """Both values as text; of a map only the entries that differ."""
    if name not in _FILLED_IN or not isinstance(wanted, Mapping) or not isinstance(found, Mapping):
        return render(wanted), render(found)
    keys = [key for key, value in wanted.items() if _entry(found, key) != _text(value)]
    wished, there = (", ".join(f"{key}: {_entry(value, key) or 'none'}" for key in keys) for value in (wanted, found))
    return wished, there


def _merged(name: str, wanted: Value, found: Value) -> Value:
    """ALTER replaces a map whole: an operator's own entries stay, unless they belong to another strategy."""
    if name != "compaction" or not isinstance(found, Mapping) or not isinstance(wanted, Mapping):
        return wanted
    return {**found, **wanted} if _entry(found, "class") == _entry(wanted, "class") else wanted


def _entry(value: Value | None, key: str) -> str:
    if not isinstance(value, Mapping) or key not in value:
        return ""
    entry = value[key]
    if isinstance(entry, Sequence) and not isinstance(entry, str):
        return str(len(entry))  # ScyllaDB may name the racks of the replicas instead of their number
    return _text(entry)


def _text(value: Value) -> str:
    """Comparable whatever the server's spelling: full class names, numbers as text."""
    if isinstance(value, str):
        return value.rsplit(".", 1)[-1] if value.startswith("org.apache.cassandra.") else value
    return render(value)
