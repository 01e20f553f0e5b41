"""Keyspace and table on a real server: created once, drift found, what would lose data refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
from cassandra.cluster import Session
from typer.testing import CliRunner

from eventstore.cli.app import build
from eventstore.errors import ConfigurationError, PermanentStoreError, RefusedError, TransientStoreError
from eventstore.registry import load_registry
from eventstore.store.dialect import Dialect
from eventstore.store.drift import Action
from eventstore.store.schema import apply_schema, plan_schema, require_schema
from eventstore.store.session import close, connect
from eventstore.tenancy import Credentials, Tier, TlsFiles
from eventstore.tenancy.buckets import history
from tests.stacks import RunningStack

pytestmark = pytest.mark.integration

DDL_SECONDS = 60.0
"""A node that others keep busy answers a DROP late."""


@pytest.fixture
def tier(stack: RunningStack) -> Tier:
    """A tier on the real cluster `c15`, with a keyspace of its own."""
    found = load_registry(stack.registry_path).tiers["t15"]
    return replace(found, cluster=replace(found.cluster, keyspace=f"schema_{uuid4().hex[:12]}"))


@pytest.fixture
def session(tier: Tier) -> Iterator[Session]:
    opened = connect(tier.cluster, request_timeout=DDL_SECONDS)
    yield opened
    opened.execute(f"DROP KEYSPACE IF EXISTS {tier.cluster.keyspace}")
    close(opened)


def table(tier: Tier) -> str:
    return f"{tier.cluster.keyspace}.events"


def write_a_row(session: Session, tier: Tier) -> None:
    columns = "(uid, tenant, bid, ts, eid, event) VALUES ('u', 't', 0, 0, uuid(), 'e')"
    session.execute(f"INSERT INTO {table(tier)} {columns}")


def test_applying_twice_does_nothing_the_second_time(session: Session, tier: Tier) -> None:
    assert plan_schema(session, tier).server.dialect in set(Dialect)
    told: list[str] = []
    first = apply_schema(session, tier, progress=told.append)
    assert [statement.split()[:2] for statement in first] == [["CREATE", "KEYSPACE"], *3 * [["--", "One"]]]
    assert told == first
    assert apply_schema(session, tier) == []
    assert plan_schema(session, tier).changes == ()
    assert session.keyspace == tier.cluster.keyspace


def test_what_somebody_changed_is_found_and_mended(session: Session, tier: Tier) -> None:
    apply_schema(session, tier)
    session.execute(f"ALTER TABLE {table(tier)} WITH gc_grace_seconds = 0 AND default_time_to_live = 60")
    session.execute(f"ALTER TABLE {table(tier)} DROP context")
    found = {(change.subject, change.action) for change in plan_schema(session, tier).changes}
    assert found == {
        ("column context", Action.ADD),
        ("option gc_grace_seconds", Action.ALTER),
        ("option default_time_to_live", Action.ALTER),
    }
    assert len(apply_schema(session, tier)) == 2
    assert plan_schema(session, tier).changes == ()


def test_tables_that_an_older_version_did_not_have_are_missed_and_made(session: Session, tier: Tier) -> None:
    apply_schema(session, tier)
    for name in ("latest", "impressions"):
        session.execute(f"DROP TABLE {tier.cluster.keyspace}.{name}")
    with pytest.raises(
        PermanentStoreError, match=r"expected table latest, table impressions .*`eventstore schema apply"
    ):
        require_schema(session, tier)
    assert len(apply_schema(session, tier)) == 2
    assert require_schema(session, tier) == []


def test_an_unknown_column_is_reported_but_is_no_drift(session: Session, tier: Tier) -> None:
    apply_schema(session, tier)
    session.execute(f"ALTER TABLE {table(tier)} ADD surprise int")
    plan = plan_schema(session, tier)
    assert [change.action for change in plan.changes] == [Action.KEEP]
    assert not plan.drifted
    assert apply_schema(session, tier) == []


def test_late_data_get_another_compaction(session: Session, tier: Tier) -> None:
    apply_schema(session, tier)
    late = replace(tier, compaction=tier.compaction.INCREMENTAL)
    assert len(apply_schema(session, late)) == 1
    assert plan_schema(session, late).changes == ()


def test_a_table_with_another_partition_key_is_refused_and_left_alone(session: Session, tier: Tier) -> None:
    apply_schema(session, tier)
    session.execute(f"DROP TABLE {table(tier)}")
    session.execute(f"CREATE TABLE {table(tier)} (uid text, ts timestamp, eid uuid, PRIMARY KEY (uid, ts, eid))")
    before = session.execute(f"DESCRIBE TABLE {table(tier)}").one()
    with pytest.raises(RefusedError, match=r"partition key of events: expected \(uid, tenant, bid\), got \(uid\)"):
        apply_schema(session, tier)
    assert session.execute(f"DESCRIBE TABLE {table(tier)}").one() == before


def test_rows_hold_the_strategies_that_they_were_written_under(session: Session, tier: Tier) -> None:
    other = replace(tier, buckets=history([(0, 86_400_000)]))
    apply_schema(session, tier)
    assert {(change.place, change.action) for change in plan_schema(session, other).changes} == {
        ("option comment of events", Action.ALTER),
        ("option comment of impressions", Action.ALTER),
    }
    write_a_row(session, tier)
    with pytest.raises(RefusedError, match="strategies under which rows were written were changed or removed"):
        apply_schema(session, other)
    begins = 2_000_000_000_000
    refined = replace(tier, buckets=history([(0, 5 * 86_400_000), (begins, 86_400_000)]))
    assert plan_schema(session, refined, now_ms=begins).refusals
    assert len(apply_schema(session, refined)) == 2
    with pytest.raises(RefusedError, match="append to the list instead"):
        apply_schema(session, tier)


def test_a_shorter_retention_is_refused_once_there_are_rows(session: Session, tier: Tier) -> None:
    apply_schema(session, tier)
    write_a_row(session, tier)
    with pytest.raises(RefusedError, match="option default_time_to_live of events: expected 864000, got 1296000"):
        apply_schema(session, replace(tier, retention_seconds=10 * 86_400))


def test_another_number_of_replicas_is_refused(session: Session, tier: Tier) -> None:
    apply_schema(session, tier)
    with pytest.raises(RefusedError, match="keyspace option replication"):
        apply_schema(session, replace(tier, cluster=replace(tier.cluster, replication=2)))


def test_a_cluster_that_does_not_answer_is_transient(tier: Tier) -> None:
    with pytest.raises(TransientStoreError, match=r"cluster c15: no node answers; .*refused.* contact_points and port"):
        connect(replace(tier.cluster, port=1))


def test_the_wrong_datacenter_is_told_with_the_right_one(tier: Tier) -> None:
    with pytest.raises(PermanentStoreError, match=r"expected nodes in datacenter moon, found dc1; mend clusters\.c15"):
        connect(replace(tier.cluster, datacenter="moon"))


def test_a_tls_file_that_is_not_there_is_told_by_its_path(tier: Tier, tmp_path: Path) -> None:
    missing = replace(tier.cluster, tls=TlsFiles(tmp_path / "ca.pem"))
    with pytest.raises(ConfigurationError, match=r"clusters\.c15\.tls: expected readable PEM files at .*ca\.pem"):
        connect(missing)


def test_a_password_that_is_not_there_is_told_by_where_it_was_looked_for(
    tier: Tier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENTSTORE_TEST_PASSWORD", raising=False)
    by_name = replace(tier.cluster, credentials=Credentials("u", password_env="EVENTSTORE_TEST_PASSWORD"))
    with pytest.raises(ConfigurationError, match="EVENTSTORE_TEST_PASSWORD, found it unset; set it"):
        connect(by_name)
    by_file = replace(tier.cluster, credentials=Credentials("u", password_file=tmp_path / "secret"))
    with pytest.raises(ConfigurationError, match="password_file: expected a readable text file"):
        connect(by_file)
    (tmp_path / "secret").write_text("s3cret\n")
    close(connect(by_file))  # this server asks nobody for a password


@pytest.fixture
def commands(tier: Tier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command line over a registry of the one tier."""
    cluster = tier.cluster
    (tmp_path / "tenants.yaml").write_text(
        f"clusters: {{c15: {{contact_points: [{cluster.contact_points[0]}], port: {cluster.port}, replication: 1, "
        f"datacenter: {cluster.datacenter}, keyspace: {cluster.keyspace}}}}}\n"
        "tiers: {t15: {retention: 15d, cluster: c15, buckets: [{width: 5d}]}}\n"
    )
    monkeypatch.setenv("EVENTSTORE_REGISTRY", str(tmp_path / "tenants.yaml"))
    return CliRunner()


def test_the_commands_plan_apply_and_check(commands: CliRunner, session: Session, tier: Tier) -> None:
    app = build(["schema"])
    planned = commands.invoke(app, ["schema", "plan"])
    assert (planned.exit_code, planned.stdout.count(";\n")) == (0, 4)
    assert commands.invoke(app, ["schema", "check"]).exit_code == 1
    applied = commands.invoke(app, ["schema", "apply", "--cluster", "c15"])
    assert (applied.exit_code, applied.stdout) == (0, f"c15: create keyspace{3 * ', create table'}; all nodes agree\n")
    checked = commands.invoke(app, ["schema", "check", "--json"])
    assert checked.exit_code == 0
    (report,) = orjson.loads(checked.stdout)
    assert (report["cluster"], report["changes"], report["statements"]) == ("c15", [], [])
    session.execute(f"DROP TABLE {table(tier)}")
    session.execute(f"CREATE TABLE {table(tier)} (uid text PRIMARY KEY)")
    assert commands.invoke(app, ["schema", "plan"]).exit_code == 3
    refused = commands.invoke(app, ["schema", "apply"])
    assert refused.exit_code == 3
    assert "partition key" in refused.stderr
