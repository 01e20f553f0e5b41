"""What separates a server's schema from a tier's: found in both dialects, and altered only where that is safe."""

from dataclasses import replace

import pytest

from eventstore.events.cells import TableName
from eventstore.store.ddl import Table, parse_keyspace_options, parse_table, render, render_options
from eventstore.store.dialect import (
    Dialect,
    history_comment,
    keyspace_options,
    recorded_history,
    table_options,
    time_window,
)
from eventstore.store.drift import Action, Change, Rows, keyspace_changes, statements, table_changes
from eventstore.tenancy import Compaction, Tier
from eventstore.tenancy.buckets import history
from tests.builders import DAY_MS, NOW_MS, cluster, tier

pytestmark = pytest.mark.unit

THREE = cluster("c15", replication=3)
T15 = tier("t15", days=15, width_days=5, on=THREE)
ROWS = Rows(any=True, free_from_ms=NOW_MS)
EMPTY = Rows(any=False, free_from_ms=NOW_MS)

COLUMNS = """\
    uid text,
    tenant text,
    bid int,
    ts timestamp,
    eid uuid,
    context text,
    event text,
    properties text,
    PRIMARY KEY ((uid, tenant, bid), ts, eid)
) WITH CLUSTERING ORDER BY (ts DESC, eid DESC)"""

CASSANDRA_5 = f"""\
CREATE TABLE eventstore.events (
{COLUMNS}
    AND additional_write_policy = '99p'
    AND allow_auto_snapshot = true
    AND bloom_filter_fp_chance = 0.01
    AND caching = {{'keys': 'ALL', 'rows_per_partition': 'NONE'}}
    AND cdc = false
    AND comment = '{history_comment(T15.buckets)}'
    AND compaction = {{'class': 'org.apache.cassandra.db.compaction.TimeWindowCompactionStrategy', \
'compaction_window_size': '12', 'compaction_window_unit': 'HOURS', 'max_threshold': '32', 'min_threshold': '4'}}
    AND compression = {{'chunk_length_in_kb': '16', 'class': 'org.apache.cassandra.io.compress.LZ4Compressor'}}
    AND memtable = 'default'
    AND crc_check_chance = 1.0
    AND default_time_to_live = 1296000
    AND extensions = {{}}
    AND gc_grace_seconds = 86400
    AND speculative_retry = '99p';"""
"""As Cassandra 5.0.9 describes it."""

SCYLLADB = f"""\
CREATE TABLE eventstore.events (
{COLUMNS}
    AND bloom_filter_fp_chance = 0.01
    AND caching = {{'keys': 'ALL', 'rows_per_partition': 'ALL'}}
    AND comment = '{history_comment(T15.buckets)}'
    AND compaction = {{'class': 'TimeWindowCompactionStrategy', 'compaction_window_size': '12', \
'compaction_window_unit': 'HOURS'}}
    AND compression = {{'sstable_compression': 'org.apache.cassandra.io.compress.LZ4Compressor'}}
    AND crc_check_chance = 1
    AND default_time_to_live = 1296000
    AND gc_grace_seconds = 86400
    AND max_index_interval = 2048
    AND memtable_flush_period_in_ms = 0
    AND min_index_interval = 128
    AND speculative_retry = '99.0PERCENTILE'
    AND tombstone_gc = {{'mode': 'repair', 'propagation_delay_in_seconds': '3600'}};"""
"""In the form that its documentation shows."""

DESCRIBED = {Dialect.CASSANDRA: CASSANDRA_5, Dialect.SCYLLADB: SCYLLADB}
both = pytest.mark.parametrize("dialect", list(Dialect))


def wanted(dialect: Dialect, of: Tier = T15) -> Table:
    columns = f"CREATE TABLE IF NOT EXISTS eventstore.events (\n{COLUMNS}\n AND "
    return parse_table(columns + render_options(table_options(TableName.EVENTS, of, dialect)))


def drift(dialect: Dialect, old: str = "", new: str = "", *, of: Tier = T15, rows: Rows = ROWS) -> list[Change]:
    described = DESCRIBED[dialect]
    assert old in described
    return [*table_changes(TableName.EVENTS, wanted(dialect, of), parse_table(described.replace(old, new, 1)), rows)]


@both
def test_a_table_as_the_server_describes_it_has_no_drift(dialect: Dialect) -> None:
    assert drift(dialect) == []


@both
def test_options_are_altered_in_one_statement(dialect: Dialect) -> None:
    changes = drift(dialect, "gc_grace_seconds = 86400", "gc_grace_seconds = 864000")
    assert [(c.subject, c.action, c.wanted, c.found) for c in changes] == [
        ("option gc_grace_seconds", Action.ALTER, "86400", "864000")
    ]
    more = [*changes, Change("option comment", Action.ALTER, "", "", cql="comment = 'x'", table="events")]
    assert statements("ks", more) == ["ALTER TABLE ks.events WITH gc_grace_seconds = 86400 AND comment = 'x'"]


@both
def test_a_missing_column_is_added(dialect: Dialect) -> None:
    changes = drift(dialect, "    context text,\n")
    assert statements("ks", changes) == ["ALTER TABLE ks.events ADD context text"]


@both
def test_an_unknown_column_is_kept(dialect: Dialect) -> None:
    (change,) = drift(dialect, "    event text,", "    event text,\n    surprise map<text, frozen<list<int>>>,")
    assert (change.subject, change.action, change.found) == (
        "column surprise",
        Action.KEEP,
        "map<text, frozen<list<int>>>",
    )
    assert statements("ks", [change]) == []


@both
@pytest.mark.parametrize(
    ("old", "new", "subject", "found"),
    [
        ("((uid, tenant, bid), ts, eid)", "((uid, tenant), ts, eid)", "partition key", "(uid, tenant)"),
        ("((uid, tenant, bid), ts, eid)", "((tenant, uid, bid), ts, eid)", "partition key", "(tenant, uid, bid)"),
        ("(ts DESC, eid DESC)", "(ts ASC, eid ASC)", "clustering columns", "ts ASC, eid ASC"),
        ("    bid int,", "    bid bigint,", "column bid", "bigint"),
        ("    properties text,", "    properties blob,", "column properties", "blob"),
        ("    event text,", "    event text static,", "column event", "text static"),
    ],
)
def test_another_key_or_type_is_refused(dialect: Dialect, old: str, new: str, subject: str, found: str) -> None:
    (change,) = drift(dialect, old, new)
    assert (change.subject, change.action, change.found) == (subject, Action.REFUSE, found)
    assert "use another keyspace, and replay into it" in change.why


def test_a_single_column_key_is_another_key() -> None:
    found = parse_table("CREATE TABLE ks.events (uid text PRIMARY KEY, event text)")
    subjects = {change.subject for change in table_changes(TableName.EVENTS, wanted(Dialect.CASSANDRA), found, ROWS)}
    assert {"partition key", "clustering columns", "column context"} <= subjects


@both
def test_a_longer_retention_is_altered_with_its_window(dialect: Dialect) -> None:
    changes = drift(dialect, of=replace(T15, retention_seconds=30 * 86_400))
    assert {change.action for change in changes} == {Action.ALTER}
    (ddl,) = statements("ks", changes)
    assert "default_time_to_live = 2592000" in ddl
    assert "'compaction_window_size': '1', 'compaction_window_unit': 'DAYS'" in ddl


@both
@pytest.mark.parametrize("found", ["2592000", "0"])
def test_a_shorter_retention_is_refused_while_there_are_rows(dialect: Dialect, found: str) -> None:
    old, new = "default_time_to_live = 1296000", f"default_time_to_live = {found}"
    (change,) = drift(dialect, old, new)
    assert change.action is Action.REFUSE
    assert "make a new tier of the shorter retention" in change.why
    (change,) = drift(dialect, old, new, rows=EMPTY)
    assert change.action is Action.ALTER


@both
def test_strategies_that_were_appended_in_time_are_recorded(dialect: Dialect) -> None:
    refined = replace(T15, buckets=history([(0, 5 * DAY_MS), (NOW_MS, DAY_MS)]))
    (change,) = drift(dialect, of=refined)
    assert statements("ks", [change]) == [f"ALTER TABLE ks.events WITH comment = '{history_comment(refined.buckets)}'"]


@both
@pytest.mark.parametrize("pairs", [[(0, DAY_MS)], [(0, 5 * DAY_MS), (NOW_MS - 1, DAY_MS)]])
def test_strategies_that_contradict_the_rows_are_refused(dialect: Dialect, pairs: list[tuple[int, int]]) -> None:
    other = replace(T15, buckets=history(pairs))
    (change,) = drift(dialect, of=other)
    assert (change.subject, change.action) == ("option comment", Action.REFUSE)
    (change,) = drift(dialect, of=other, rows=EMPTY)
    assert change.action is Action.ALTER


def test_a_strategy_that_began_unrecorded_can_be_recorded_by_hand() -> None:
    begun = replace(T15, buckets=history([(0, 5 * DAY_MS), (NOW_MS - DAY_MS, DAY_MS)]))
    (change,) = drift(Dialect.CASSANDRA, of=begun)
    assert "if all workers had it in force before it began, record it: ALTER TABLE … WITH comment = " in change.why


@both
def test_rows_under_unrecorded_strategies_are_refused_with_the_mend(dialect: Dialect) -> None:
    (change,) = drift(dialect, history_comment(T15.buckets), "somebody''s own words")
    assert change.action is Action.REFUSE
    assert f"ALTER TABLE … WITH comment = '{history_comment(T15.buckets)}'" in change.why


def test_an_operators_own_compaction_options_survive_an_alter() -> None:
    (change,) = drift(Dialect.CASSANDRA, "'compaction_window_size': '12'", "'compaction_window_size': '6'")
    assert (change.wanted, change.found) == ("compaction_window_size: 12", "compaction_window_size: 6")
    assert "'max_threshold': '32'" in change.cql
    (change,) = drift(Dialect.CASSANDRA, "TimeWindowCompactionStrategy", "SizeTieredCompactionStrategy")
    assert "'max_threshold'" not in change.cql


def test_tombstones_wait_for_repair_only_where_there_is_something_to_repair() -> None:
    old, new = "{'mode': 'repair'", "{'mode': 'timeout'"
    (change,) = drift(Dialect.SCYLLADB, old, new)
    assert (change.subject, change.wanted, change.found) == ("option tombstone_gc", "mode: repair", "mode: timeout")
    assert drift(Dialect.SCYLLADB, old, new, of=replace(T15, cluster=cluster("c15", replication=1))) == []
    assert "tombstone_gc" not in table_options(TableName.EVENTS, T15, Dialect.CASSANDRA)


@pytest.mark.parametrize(
    ("days", "window"),
    [(15, (12, "HOURS")), (30, (1, "DAYS")), (60, (2, "DAYS")), (90, (3, "DAYS")), (7, (6, "HOURS"))],
)
def test_a_retention_is_about_thirty_windows(days: int, window: tuple[int, str]) -> None:
    assert time_window(days * 86_400) == window


def test_a_retention_of_an_hour_has_windows_of_minutes() -> None:
    assert time_window(3_600) == (2, "MINUTES")


def test_late_data_are_compacted_by_what_the_server_has_for_it() -> None:
    late = replace(T15, compaction=Compaction.INCREMENTAL)
    for table, of in ((TableName.EVENTS, late), (TableName.LATEST, T15), (TableName.IMPRESSIONS, T15)):
        assert table_options(table, of, Dialect.SCYLLADB)["compaction"] == {"class": "IncrementalCompactionStrategy"}
        assert "UnifiedCompactionStrategy" in str(table_options(table, of, Dialect.CASSANDRA)["compaction"])


def keyspace_drift(dialect: Dialect, described: str) -> list[Change]:
    options = parse_keyspace_options(f"CREATE KEYSPACE eventstore WITH {described};")
    return [*keyspace_changes(keyspace_options(T15, dialect), options, "dc1")]


CASSANDRA_KEYSPACE = (
    "replication = {'class': 'org.apache.cassandra.locator.NetworkTopologyStrategy', 'dc1': '3', 'dc2': '2'}  AND "
    "durable_writes = true"
)
SCYLLADB_KEYSPACE = CASSANDRA_KEYSPACE.replace("org.apache.cassandra.locator.", "") + " AND tablets = {'enabled': true}"


def test_a_keyspace_as_the_servers_describe_it_has_no_drift() -> None:
    assert keyspace_drift(Dialect.CASSANDRA, CASSANDRA_KEYSPACE) == []
    assert keyspace_drift(Dialect.SCYLLADB, SCYLLADB_KEYSPACE) == []


def test_effective_values_that_scylladb_adds_as_comments_are_passed_over() -> None:
    added = "\n    -- AND auto_repair_enabled = true  -- from cluster (keyspace=NULL, cluster=true)\n"
    assert keyspace_drift(Dialect.SCYLLADB, SCYLLADB_KEYSPACE + added) == []


def test_replicas_named_by_their_racks_are_counted() -> None:
    assert keyspace_drift(Dialect.SCYLLADB, SCYLLADB_KEYSPACE.replace("'3'", "['r1', 'r2', 'r3']")) == []


@pytest.mark.parametrize(
    "described",
    [
        "replication = {'class': 'NetworkTopologyStrategy', 'dc1': '2'}",
        "replication = {'class': 'NetworkTopologyStrategy', 'dc2': '3'}",
        "replication = {'class': 'SimpleStrategy', 'replication_factor': '3'}",
        "durable_writes = true",
    ],
)
def test_another_replication_is_refused(described: str) -> None:
    (change,) = keyspace_drift(Dialect.CASSANDRA, described)
    assert (change.subject, change.action) == ("keyspace option replication", Action.REFUSE)
    assert change.wanted == "NetworkTopologyStrategy, dc1: 3"


def test_writes_that_are_not_durable_are_altered() -> None:
    changes = keyspace_drift(Dialect.CASSANDRA, CASSANDRA_KEYSPACE.replace("true", "false"))
    assert statements("ks", changes) == ["ALTER KEYSPACE ks WITH durable_writes = true"]


def test_a_keyspace_without_tablets_is_kept() -> None:
    (change,) = keyspace_drift(Dialect.SCYLLADB, CASSANDRA_KEYSPACE)
    assert change.action is Action.KEEP
    assert "tablets can be had only when a keyspace is created" in change.why


def test_a_new_keyspace_asks_for_tablets_where_there_are_any() -> None:
    assert "tablets = {'enabled': true}" in render_options(keyspace_options(T15, Dialect.SCYLLADB))
    assert "tablets" not in render_options(keyspace_options(T15, Dialect.CASSANDRA))


def test_recorded_strategies_are_read_back() -> None:
    buckets = history([(0, 5 * DAY_MS), (NOW_MS, DAY_MS)])
    assert recorded_history(history_comment(buckets)) == buckets


@pytest.mark.parametrize(
    "comment",
    ["", "words", "[]", "{}", '{"buckets_from_ms_width_ms": 1}', '{"buckets_from_ms_width_ms": [[1, 3600000]]}',
     '{"buckets_from_ms_width_ms": [[0]]}', '{"buckets_from_ms_width_ms": [[0, Infinity]]}'],
)  # fmt: skip
def test_a_comment_of_somebody_else_records_nothing(comment: str) -> None:
    assert recorded_history(comment) is None


def test_names_comments_and_odd_options_are_understood() -> None:
    table = parse_table(
        '/* of its own */ CREATE TABLE "Ks"."Odd" ("Key ""x""" text, v frozen<tuple<int, text>>, -- a value\n'
        '// and more\n PRIMARY KEY ("Key ""x""")) WITH COMPACT STORAGE AND ID = 7f1e-aa AND a = -1.5 AND b = [\'x\', 1]'
    )
    assert table.columns['Key "x"'].type == "text"
    assert table.columns["v"].type == "frozen<tuple<int, text>>"
    assert (table.partition_key, table.clustering) == (('Key "x"',), ())
    assert table.options == {"id": "7f1e-aa", "a": -1.5, "b": ["x", 1]}
    assert render(table.options["b"]) == "['x', 1]"


@pytest.mark.parametrize(
    "text",
    ["", "CREATE VIEW v", "CREATE TABLE t", "CREATE TABLE t (a", "CREATE TABLE t (a int) WITH a = ,", "CREATE TABLE t (a int) x",
     "CREATE TABLE t (a int) WITH a = 'open", "CREATE TABLE t (a int) WITH a = {'k' 1}", "CREATE TABLE t (, int)"],
)  # fmt: skip
def test_what_is_no_create_table_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_table(text)
