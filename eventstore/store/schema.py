"""A tier's keyspace and table on its cluster: plan what is missing, apply it, report drift."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from string import Template
from typing import Final

from cassandra.cluster import Session

from eventstore.errors import PermanentStoreError, RefusedError, TransientStoreError
from eventstore.store.ddl import Table, Value, parse_keyspace_options, parse_table, render_options
from eventstore.store.dialect import Dialect, Server, keyspace_options, table_options
from eventstore.store.drift import Action, Change, Rows, keyspace_changes, statements, table_changes
from eventstore.store.failures import mapped
from eventstore.store.session import use_keyspace
from eventstore.store.statements import statement
from eventstore.tenancy import Tier
from eventstore.tenancy.succession import NOTICE_MS

TABLE: Final = "events"
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
            told = "; ".join(f"{c.subject}: expected {c.wanted}, got {c.found}: {c.why}" for c in self.refusals)
            raise RefusedError(f"cluster {self.tier.cluster.name}, keyspace {self.tier.cluster.keyspace}: {told}")


def plan_schema(session: Session, tier: Tier, *, now_ms: int | None = None) -> Plan:
    """What separates the cluster's schema from the tier's.

    Args:
        session: from `connect(tier.cluster)`.
        tier: what the table is for.
        now_ms: milliseconds since the epoch, default: now; new bucket strategies must begin well after it.

    Raises:
        StoreError: the cluster does not answer, or with something unknown.
    """
    at_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    with mapped(tier.cluster.name):
        server = _server(session)
        return Plan(tier, server, tuple(_changes(session, tier, server.dialect, at_ms)))


def apply_schema(session: Session, tier: Tier, *, progress: Callable[[str], None] = lambda _: None) -> list[str]:
    """Create or alter the tier's keyspace and table, and wait until all nodes agree; gives the DDL that was run.

    The session uses the keyspace afterwards. Nothing is run if anything is refused.

    Args:
        session: from `connect(tier.cluster)`.
        tier: what the table is for.
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
        PermanentStoreError: the keyspace, the table or a column is missing.
        RefusedError: the table was made for other rules than the tier's.
        StoreError: the cluster does not answer.
    """
    plan = plan_schema(session, tier)
    plan.check()
    missing = [change.subject for change in plan.changes if change.action in (Action.CREATE, Action.ADD)]
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
    wanted_options = keyspace_options(tier, dialect)
    create = _created("create_events", keyspace, render_options(table_options(tier, dialect)))
    exists = session.execute("SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = %s", (keyspace,))
    if exists.one() is None:
        create_keyspace = _created("create_keyspace", keyspace, render_options(wanted_options))
        return [_creation("keyspace", keyspace, create_keyspace), _creation("table", TABLE, create)]
    changes = [*keyspace_changes(wanted_options, _keyspace(session, keyspace), tier.cluster.datacenter)]
    found = session.execute(
        "SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s", (keyspace, TABLE)
    )
    if found.one() is None:
        return [*changes, _creation("table", TABLE, create)]
    return [*changes, *_table_changes(session, tier, parse_table(create), now_ms + NOTICE_MS)]


def _table_changes(session: Session, tier: Tier, wanted: Table, free_from_ms: int) -> list[Change]:
    found = parse_table(_describe(session, tier.cluster.keyspace))
    changes = [*table_changes(wanted, found, Rows(any=True, free_from_ms=free_from_ms))]
    # whether there are rows is dear to ask and seldom matters
    if any(change.action is Action.REFUSE for change in changes) and not _has_rows(session, tier.cluster.keyspace):
        return [*table_changes(wanted, found, Rows(any=False, free_from_ms=free_from_ms))]
    return changes


def _created(name: str, keyspace: str, options: str) -> str:
    return Template(statement(name)).substitute(keyspace=keyspace, options=options)


def _creation(what: str, name: str, cql: str) -> Change:
    return Change(f"{what} {name}", Action.CREATE, "there", "missing", cql=cql)


def _keyspace(session: Session, keyspace: str) -> dict[str, Value]:
    return parse_keyspace_options(session.execute(f"DESCRIBE ONLY KEYSPACE {keyspace}").one()[3])


def _describe(session: Session, keyspace: str) -> str:
    described = session.execute(f"DESCRIBE TABLE {keyspace}.{TABLE}")
    return str(next(row[3] for row in described if row[1] == "table"))


def _has_rows(session: Session, keyspace: str) -> bool:
    return session.execute(f"SELECT uid FROM {keyspace}.{TABLE} LIMIT 1").one() is not None  # noqa: S608 — checked name
