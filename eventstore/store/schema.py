"""A tier's keyspace and tables on its cluster: plan what is missing, apply it, report drift."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Template
from typing import Final

from cassandra.cluster import Session

from eventstore import clock
from eventstore.errors import PermanentStoreError, RefusedError, TransientStoreError
from eventstore.events.cells import TableName
from eventstore.store.ddl import Value, parse_keyspace_options, parse_table, render_options
from eventstore.store.dialect import Dialect, Server, keyspace_options, table_options
from eventstore.store.drift import Action, Change, Rows, keyspace_changes, statements, table_changes
from eventstore.store.failures import mapped
from eventstore.store.session import use_keyspace
from eventstore.store.statements import statement
from eventstore.tenancy import Tier
from eventstore.tenancy.succession import NOTICE_MS

STATEMENT_SECONDS: Final = 60.0
"""Time for one statement of DDL: a cold, loaded node needs seconds."""
AGREEMENT_SECONDS: Final = 60.0
"""Time for all nodes to know a change."""


@dataclass(frozen=True, slots=True)
class Plan:
    tier: Tier
    server: Server
    changes: tuple[Change, ...]

    @property
    def statements(self) -> list[str]:
        return statements(self.tier.cluster.keyspace, self.changes)

    @property
    def refusals(self) -> list[Change]:
        return [change for change in self.changes if change.action is Action.REFUSE]

    @property
    def drifted(self) -> bool:
        """Whether anything is to be changed; what is kept would stay so for ever."""
        return any(change.action is not Action.KEEP for change in self.changes)

    def check(self) -> None:
        """Raises RefusedError if a change may only be made by hand: then none is made."""
        if self.refusals:
            told = "; ".join(f"{c.place}: expected {c.wanted}, got {c.found}: {c.why}" for c in self.refusals)
            raise RefusedError(f"cluster {self.tier.cluster.name}, keyspace {self.tier.cluster.keyspace}: {told}")


def plan_schema(session: Session, tier: Tier, *, now_ms: int | None = None) -> Plan:
    """What separates the cluster's schema from the tier's.

    Args:
        session: from `connect(tier.cluster)`.
        tier: what the tables are for.
        now_ms: milliseconds since the epoch, default: now; new bucket strategies must begin well after it.

    Raises:
        StoreError: the cluster does not answer, or with something unknown.
    """
    at_ms = clock.now_ms() if now_ms is None else now_ms
    with mapped(tier.cluster.name):
        server = _server(session)
        return Plan(tier, server, tuple(_changes(session, tier, server.dialect, at_ms)))


def apply_schema(session: Session, tier: Tier, *, progress: Callable[[str], None] = lambda _: None) -> list[str]:
    """Create or alter the tier's keyspace and tables, and wait until all nodes agree; gives the DDL that was run.

    The session uses the keyspace afterwards. Nothing is run if anything is refused.

    Args:
        session: from `connect(tier.cluster)`.
        tier: what the tables are for.
        progress: told each statement before it is run.

    Raises:
        RefusedError: the change needs a person.
        StoreError: the cluster does not answer, or its nodes do not agree in time.
    """
    plan = plan_schema(session, tier)
    plan.check()
    name = tier.cluster.name
    with mapped(name):
        for cql in plan.statements:
            progress(cql)
            session.execute(cql, timeout=STATEMENT_SECONDS)
            if not session.wait_for_schema_agreement(AGREEMENT_SECONDS):
                raise TransientStoreError(
                    f"cluster {name}: expected all nodes to agree on the schema within {AGREEMENT_SECONDS:.0f} s, they "
                    "do not; check that all nodes are up, then apply again"
                )
        use_keyspace(session, tier.cluster.keyspace)
    return plan.statements


def require_schema(session: Session, tier: Tier) -> list[Change]:
    """Make sure that rows of this tier can be written and found again; gives the differences that do no harm.

    Raises:
        PermanentStoreError: the keyspace, a table or a column is missing.
        RefusedError: a table was made for other rules than the tier's.
        StoreError: the cluster does not answer.
    """
    plan = plan_schema(session, tier)
    plan.check()
    missing = [change.place for change in plan.changes if change.action in (Action.CREATE, Action.ADD)]
    if missing:
        raise PermanentStoreError(
            f"cluster {tier.cluster.name}: expected {', '.join(missing)} in keyspace {tier.cluster.keyspace}, found none; "
            f"run `eventstore schema apply --cluster {tier.cluster.name}`"
        )
    return [change for change in plan.changes if change.action is Action.ALTER]


def _server(session: Session) -> Server:
    tables = session.execute("SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'system_schema'")
    if any(row[0] == "scylla_tables" for row in tables):
        return Server(Dialect.SCYLLADB, session.execute("SELECT version FROM system.versions").one()[0])
    return Server(Dialect.CASSANDRA, session.execute("SELECT release_version FROM system.local").one()[0])


def _changes(session: Session, tier: Tier, dialect: Dialect, now_ms: int) -> list[Change]:
    keyspace = tier.cluster.keyspace
    wanted = keyspace_options(tier, dialect)
    creates = {table: _created(table, keyspace, table_options(table, tier, dialect)) for table in TableName}
    exists = session.execute("SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = %s", (keyspace,))
    if exists.one() is None:
        changes = [_creation("keyspace", keyspace, _created("keyspace", keyspace, wanted))]
    else:
        changes = [*keyspace_changes(wanted, _keyspace(session, keyspace), tier.cluster.datacenter)]
    found = session.execute("SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s", (keyspace,))
    there = {row[0] for row in found}
    for table, create in creates.items():
        if table in there:
            changes += _table_changes(session, tier, table, create, now_ms + NOTICE_MS)
        else:
            changes.append(_creation("table", table, create))
    return changes


def _table_changes(session: Session, tier: Tier, table: TableName, create: str, free_from_ms: int) -> list[Change]:
    keyspace = tier.cluster.keyspace
    wanted, found = parse_table(create), parse_table(_describe(session, keyspace, table))
    changes = [*table_changes(table, wanted, found, Rows(any=True, free_from_ms=free_from_ms))]
    # whether there are rows is dear to ask and seldom matters
    if any(change.action is Action.REFUSE for change in changes) and not _has_rows(session, keyspace, table):
        return [*table_changes(table, wanted, found, Rows(any=False, free_from_ms=free_from_ms))]
    return changes


def _created(what: str, keyspace: str, options: Mapping[str, Value]) -> str:
    return Template(statement(f"create_{what}")).substitute(keyspace=keyspace, options=render_options(options))


def _creation(what: str, name: str, cql: str) -> Change:
    return Change(f"{what} {name}", Action.CREATE, "there", "missing", cql=cql)


def _keyspace(session: Session, keyspace: str) -> dict[str, Value]:
    return parse_keyspace_options(session.execute(f"DESCRIBE ONLY KEYSPACE {keyspace}").one()[3])


def _describe(session: Session, keyspace: str, table: str) -> str:
    described = session.execute(f"DESCRIBE TABLE {keyspace}.{table}")
    return str(next(row[3] for row in described if row[1] == "table"))


def _has_rows(session: Session, keyspace: str, table: str) -> bool:
    return session.execute(f"SELECT uid FROM {keyspace}.{table} LIMIT 1").one() is not None  # noqa: S608 — checked name
