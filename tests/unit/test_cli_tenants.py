"""`eventstore tenants` on the command line."""

from pathlib import Path

import orjson
import pytest
import typer
from typer.testing import CliRunner

from eventstore.cli import tenants
from eventstore.errors import ConfigurationError

pytestmark = pytest.mark.unit

REGISTRY = """\
clusters:
  c: {contact_points: [node], datacenter: dc1}
  spare: {contact_points: [other], datacenter: dc1}
tiers:
  t: {retention: 15d, cluster: c, buckets: [{width: 5d}]}
tenants:
  shop: {tier: t}
  gone: {tier: t, enabled: false}
"""

app = typer.Typer()
tenants.register(app)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "tenants.yaml"
    file.write_text(REGISTRY)
    monkeypatch.setenv("EVENTSTORE_REGISTRY", str(file))
    return file


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["tenants", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_a_valid_registry_is_counted_and_its_unused_clusters_are_warned_of(path: Path) -> None:
    code, out, err = run("check")
    assert code == 0
    assert "valid, 2 clusters, 1 tiers, 2 tenants" in out.replace("\n", " ")
    assert "clusters.spare is used by no tier" in err
    assert orjson.loads(run("check", "--json")[1])["unused_clusters"] == ["spare"]


def test_all_problems_of_an_invalid_registry_are_listed_with_exit_code_2(path: Path) -> None:
    path.write_text(REGISTRY.replace("15d", "soon").replace("tier: t}", "tier: x}"))
    code, out, err = run("check")
    assert (code, out) == (2, "")
    assert "tiers.t.retention (line 5)" in err
    assert "tenants.shop.tier (line 7)" in err
    code, out, _ = run("check", "--json")
    assert code == 2
    assert [problem["line"] for problem in orjson.loads(out)["problems"]] == [5, 7]


def test_an_edit_is_checked_against_the_registry_that_it_follows(path: Path, tmp_path: Path) -> None:
    edited = tmp_path / "edited.yaml"
    edited.write_text(REGISTRY.replace("5d}]", "1d}]"))
    assert run("check", str(edited))[0] == 0
    code, _, err = run("check", str(edited), "--against", str(path))
    assert code == 2
    assert "tiers.t.buckets: strategies under which rows were written were changed" in err


def test_tenants_are_listed(path: Path) -> None:
    listed = orjson.loads(run("list", "--json")[1])
    assert [(tenant["tenant"], tenant["enabled"]) for tenant in listed] == [("shop", True), ("gone", False)]
    assert "shop" in run("list")[1]


def test_one_tenant_is_shown_with_where_its_events_live(path: Path) -> None:
    shown = orjson.loads(run("show", "shop", "--json")[1])
    assert (shown["contact_points"], shown["buckets"]) == (["node:9042"], ["5d from 1970-01-01T00:00:00Z"])
    assert "5d from 1970-01-01T00:00:00Z" in run("show", "shop")[1]


def test_events_whose_schema_says_more_than_a_type_can_are_named_with_what_it_says(path: Path) -> None:
    (path.parent / "cart.json").write_text('{"properties": {"items": {"uniqueItems": true}}}')
    (path.parent / "seen.json").write_text('{"properties": {"at": {"type": "integer"}}}')
    path.write_text(REGISTRY.replace("shop: {tier: t}", "shop: {tier: t, events: {cart: cart.json, seen: seen.json}}"))
    shown = orjson.loads(run("show", "shop", "--json")[1])
    assert shown["checked_events"] == ["cart", "seen"]
    assert shown["slower_checks"] == ["cart: items: uniqueItems"]


def test_an_unknown_tenant_is_told_by_name(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tenant nobody: expected a tenant of"):
        tenants.show("nobody")
