import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from eventstore.cli import settings
from eventstore.cli.settings import all_settings, markdown_table
from eventstore.config import Settings, load_settings

pytestmark = pytest.mark.unit

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def run(*arguments: str) -> str:
    app = typer.Typer()
    settings.register(app)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_documented_settings_are_those_there_are() -> None:
    assert DOCUMENT.read_text() == markdown_table(), "run `eventstore settings --markdown > docs/settings.md`"


def test_the_markdown_is_the_same_whatever_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_WORKER__GROUP", "another")
    assert run("--markdown") == markdown_table()


def test_every_setting_has_a_meaning() -> None:
    assert [setting.name for setting in all_settings(Settings()) if not setting.description.endswith(".")] == []


def test_a_variable_named_by_the_command_sets_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_TOPICS__PARTITIONS", "32")
    found = {setting["variable"]: setting for setting in json.loads(run("--json"))}
    assert found["EVENTSTORE_TOPICS__PARTITIONS"]["value"] == 32
    assert found["EVENTSTORE_TOPICS__PARTITIONS"]["default"] == 8


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--markdown"]])
def test_secrets_are_never_shown(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_KAFKA__SASL_PASSWORD", "hush")
    monkeypatch.setenv("EVENTSTORE_KAFKA__OPTIONS", '{"ssl.key.password": "hush", "client.id": "x"}')
    assert "hush" not in run(*arguments)


def test_a_secret_may_be_a_file_of_its_variables_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "EVENTSTORE_KAFKA__SASL_PASSWORD").write_text("hush")
    monkeypatch.setenv("EVENTSTORE_SECRETS_DIR", str(tmp_path))
    password = load_settings().kafka.sasl_password
    assert password is not None
    assert password.get_secret_value() == "hush"
