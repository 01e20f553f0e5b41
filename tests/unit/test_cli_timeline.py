from pathlib import Path

import msgspec
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from eventstore.cli import timeline
from eventstore.errors import UnknownTenantError
from eventstore.events.stored import StoredEvent
from tests.builders import NOW_MS, eid, stored

pytestmark = pytest.mark.unit

REGISTRY = """\
clusters:
  c30: {contact_points: [127.0.0.1], datacenter: dc1, replication: 1}
tiers:
  t30: {retention: 30d, cluster: c30, buckets: [{width: 10d}]}
tenants:
  shop: {tier: t30}
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """The command alone, with a registry whose cluster is never reached."""
    (tmp_path / "tenants.yaml").write_text(REGISTRY)
    monkeypatch.chdir(tmp_path)
    made = typer.Typer(pretty_exceptions_enable=False)
    timeline.register(made)
    return made


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "yesterday"], "expected RFC 3339 with a zone"),
        (["--to", "2026-03-01T00:00:00"], "expected RFC 3339 with a zone"),
        (["--last", "1 week"], "expected a duration such as 15d"),
        (["--last", "1d", "--from", "2026-03-01T00:00:00Z"], "--last or --from"),
        (["--count", "--ndjson"], "at most one of"),
        (["--latest", "a", "--event", "b"], "--latest already names the event"),
        (["--limit", "0"], "--limit"),
    ],
)
def test_a_wrong_option_is_a_usage_error_that_names_it(app: typer.Typer, arguments: list[str], said: str) -> None:
    result = CliRunner(env={"COLUMNS": "300", "TERM": "dumb"}).invoke(app, ["shop", "u1", *arguments])

    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_an_unknown_tenant_is_refused_before_any_cluster_is_asked(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["shopp", "u1"])

    assert isinstance(result.exception, UnknownTenantError)


def test_a_past_range_beyond_the_retention_is_empty_without_asking_a_cluster(app: typer.Typer) -> None:
    result = CliRunner().invoke(
        app, ["shop", "u1", "--from", "2020-01-01T00:00:00Z", "--to", "2020-01-02T00:00:00Z", "--json"]
    )

    assert result.exit_code == 0
    assert msgspec.json.decode(result.stdout) == {"tenant": "shop", "uid": "u1", "events": [], "next_cursor": None}


def test_a_time_without_a_zone_is_refused_and_one_with_a_zone_is_milliseconds() -> None:
    assert timeline.instant("1970-01-01T01:00:01.5+01:00") == 1_500
    with pytest.raises(typer.BadParameter):
        timeline.instant("1970-01-01T01:00:01")


def shown(*events: StoredEvent, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(timeline.events_table("u1 of shop", list(events)))
    return capture.get()


def test_the_table_shows_time_name_and_properties_on_one_line_each() -> None:
    line = next(line for line in shown(stored(NOW_MS + 7, 5)).splitlines() if "product_viewed" in line)

    assert "2026-09-21 14:13:20.007" in line
    assert '{"number": 5}' in line


def test_long_properties_are_cut_to_the_width() -> None:
    long = StoredEvent(NOW_MS, eid(1), "x", msgspec.Raw(b'{"a": "' + b"y" * 5_000 + b'"}'), msgspec.Raw(b"{}"))
    text = shown(long, width=60)

    assert "…" in text
    assert max(map(len, text.splitlines())) <= 60
    assert len(text.splitlines()) == 6


def test_a_producers_text_neither_drives_the_terminal_nor_is_read_as_markup() -> None:
    nasty = StoredEvent(NOW_MS, eid(1), "\x1b[31mred", msgspec.Raw(b'{"a":\n ["[bold]"]}'), msgspec.Raw(b"{}"))
    text = shown(nasty)

    assert "\x1b" not in text
    assert '{"a": ["[bold]"]}' in text
