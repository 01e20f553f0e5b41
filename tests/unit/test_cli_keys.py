"""`eventstore keys` on the command line."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
import typer
from typer.testing import CliRunner

from eventstore.cli import keys
from eventstore.errors import ConfigurationError, ExitCode, RefusedError
from eventstore.registry import load_registry
from eventstore.tenancy import KeyUse
from eventstore.tenancy.keys import KeyRing

pytestmark = pytest.mark.unit

REGISTRY = """\
# who may send what
clusters:
  c: {contact_points: [node], datacenter: dc1}
tiers:
  t: {retention: 15d, cluster: c, buckets: [{width: 5d}]}
tenants:
  zoo: {tier: t}  # the oldest
  shop:
    tier: "t"
"""

app = typer.Typer()
keys.register(app)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "tenants.yaml"
    file.write_text(REGISTRY)
    monkeypatch.setenv("EVENTSTORE_REGISTRY", str(file))
    return file


def run(*arguments: str, given: str | None = None) -> str:
    result = CliRunner().invoke(app, ["keys", *arguments], input=given, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def opened(path: Path, key: str) -> tuple[str, KeyUse] | None:
    access = KeyRing.of(load_registry(path)).access(key)
    return access and (access.tenant.name, access.use)


def test_a_key_that_is_made_opens_its_tenant_and_stands_nowhere(path: Path) -> None:
    key = run("create", "shop", "--use", "write").strip()
    assert opened(path, key) == ("shop", KeyUse.WRITE)
    assert key not in path.read_text()
    assert key not in run("list")
    assert key[4:] not in path.read_text()


def test_the_rest_of_the_registry_stays_as_it_was(path: Path) -> None:
    run("create", "shop", "--use", "read")
    assert path.read_text().startswith(REGISTRY)


def test_keys_are_changed_over_one_beside_the_other(path: Path) -> None:
    old = orjson.loads(run("create", "shop", "--use", "read", "--json"))
    new = orjson.loads(run("create", "shop", "--use", "read", "--json"))
    assert opened(path, old["key"]) == opened(path, new["key"]) == ("shop", KeyUse.READ)
    assert {each["id"] for each in orjson.loads(run("list", "shop", "--json"))} == {old["id"], new["id"]}
    run("revoke", "shop", old["id"])
    assert (opened(path, old["key"]), opened(path, new["key"])) == (None, ("shop", KeyUse.READ))
    run("revoke", "shop", new["id"])
    assert path.read_text() == REGISTRY
    assert "No keys" in run("list")


def test_whose_another_key_is_stays_told_when_one_is_revoked(path: Path) -> None:
    mine, other = (
        f"      - use: {use}  # {whose}\n        sha256: {digit * 64}\n"
        for use, whose, digit in (("read", "the app's", "a"), ("write", "the shop's", "b"))
    )
    path.write_text(f"{REGISTRY}    keys:\n{mine}{other}")
    run("revoke", "shop", "a" * 12)
    assert path.read_text() == f"{REGISTRY}    keys:\n{other}"


def test_a_key_that_clients_have_already_is_taken_over(path: Path) -> None:
    run("create", "zoo", "--use", "write", "--adopt", given="a-key-of-before\n")
    assert opened(path, "a-key-of-before") == ("zoo", KeyUse.WRITE)
    with pytest.raises(RefusedError, match="expected a key of 8"):
        run("create", "zoo", "--use", "write", "--adopt", given="short\n")


@pytest.mark.parametrize(("arguments", "told"), [
    (("create", "show", "--use", "write"), r"expected a tenant of the registry \(shop, zoo\), got 'show'"),
    (("list", "show"), "expected a tenant of the registry"),
    (("revoke", "show", "x"), "expected a tenant of the registry"),
    (("revoke", "shop", "x"), r"tenant shop: expected the id of one of its keys \(none\), got 'x'"),
])  # fmt: skip
def test_a_name_that_is_not_known_is_told(path: Path, arguments: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as refused:
        run(*arguments)
    assert refused.value.exit_code == ExitCode.USAGE
    assert path.read_text() == REGISTRY


def test_two_who_make_keys_at_once_both_have_them(path: Path) -> None:
    def create(number: int) -> None:
        keys._edit(
            path, lambda entry: entry.setdefault("keys", []).append({"use": "read", "sha256": f"{number:064x}"}), "shop"
        )

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(create, range(24)))
    assert len(load_registry(path).tenants["shop"].keys) == 24


def test_a_link_to_the_registry_stays_one(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "elsewhere" / "tenants.yaml"
    link.parent.mkdir()
    link.symlink_to(path)
    (link.parent / "paid.json").write_text('{"type": "object"}')  # found beside the link, as workers find it
    path.write_text(REGISTRY + "    events: {paid: paid.json}\n")
    monkeypatch.setenv("EVENTSTORE_REGISTRY", str(link))
    key = run("create", "shop", "--use", "read").strip()
    assert link.is_symlink()
    assert opened(link, key) == ("shop", KeyUse.READ)
