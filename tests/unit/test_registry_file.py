"""A registry file that changes while it is in force."""

import asyncio
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog
from prometheus_client import REGISTRY

from eventstore.errors import ConfigurationError, RegistryError
from eventstore.registry import RegistryFile, load_registry
from eventstore.tenancy import Registry

pytestmark = pytest.mark.unit

DOCUMENT = """\
clusters:
  c: {contact_points: [node], datacenter: dc1}
tiers:
  t: {retention: 15d, cluster: c, buckets: [{width: 5d}]}
tenants:
  shop: {tier: t, events: {viewed: viewed.json}}
"""
DEADLINE = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tenants.yaml"
    file.write_text(DOCUMENT)
    (tmp_path / "viewed.json").write_text("{}")
    return file


def reloads() -> float:
    return REGISTRY.get_sample_value("eventstore_registry_reloads_total") or 0


def failures() -> float:
    return REGISTRY.get_sample_value("eventstore_registry_reload_failures_total") or 0


def test_a_missing_file_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"expected a readable file at .*nowhere\.yaml, got No such file"):
        load_registry(tmp_path / "nowhere.yaml")


def test_a_file_that_is_invalid_at_the_start_is_an_error(path: Path) -> None:
    path.write_text("clusters: []")
    with pytest.raises(RegistryError) as caught:
        RegistryFile(path)
    assert caught.value.source == str(path)


def test_a_valid_edit_is_put_in_force_and_told_once(path: Path) -> None:
    file, before = RegistryFile(path), reloads()
    told: list[Registry] = []
    file.subscribe(told.append)
    assert not file.refresh()
    path.write_text(DOCUMENT + "  forum: {tier: t}\n")
    assert file.refresh()
    assert not file.refresh()
    assert told == [file.current]
    assert set(file.current.tenants) == {"shop", "forum"}
    assert reloads() == before + 1


def test_an_invalid_edit_leaves_the_old_registry_in_force_and_is_counted_once(path: Path) -> None:
    file, before = RegistryFile(path), failures()
    old = file.current
    path.write_text(DOCUMENT + "  forum: {tier: nope}\n")
    with structlog.testing.capture_logs() as logs:
        assert not file.refresh()
        assert not file.refresh()
    assert file.current is old
    assert failures() == before + 1
    (line,) = logs
    assert line["log_level"] == "error"
    assert "tenants.forum.tier (line 7)" in line["error"]
    path.write_text(DOCUMENT + "  forum: {tier: also-not}\n")
    file.refresh()
    assert failures() == before + 2


def test_a_file_that_vanishes_leaves_the_old_registry_in_force(path: Path) -> None:
    file, before = RegistryFile(path), failures()
    path.unlink()
    assert not file.refresh()
    assert failures() == before + 1
    path.write_text(DOCUMENT)
    assert not file.refresh(), "what came back is what is in force"
    assert "shop" in file.current.tenants


def test_an_edit_that_would_lose_sight_of_rows_is_refused(path: Path) -> None:
    file, before = RegistryFile(path), failures()
    path.write_text(DOCUMENT.replace("width: 5d", "width: 1d"))
    assert not file.refresh()
    assert failures() == before + 1
    assert file.current.tiers["t"].buckets.strategies[0].width_ms == 5 * 86_400_000


def test_a_strategy_is_refused_or_accepted_by_the_time_of_the_edit(path: Path) -> None:
    file = RegistryFile(path)
    added = "buckets: [{width: 5d}, {width: 1d, effective_from: 2026-01-02T00:00:00Z}]"
    path.write_text(DOCUMENT.replace("buckets: [{width: 5d}]", added))
    day_before_ms = 1_767_225_600_000  # 2026-01-01
    assert not file.refresh(at_ms=day_before_ms + 1)
    path.write_text(path.read_text() + "# looked at again\n")
    assert file.refresh(at_ms=day_before_ms)


def test_a_changed_event_schema_is_put_in_force(path: Path) -> None:
    file = RegistryFile(path)
    (path.parent / "viewed.json").write_text('{"required": ["id"]}')
    assert file.refresh()
    assert file.current.tenants["shop"].schemas["viewed"].check(b"{}") is not None


def test_a_schema_that_is_mended_after_a_bad_edit_is_noticed(path: Path) -> None:
    file = RegistryFile(path)
    path.write_text(DOCUMENT.replace("viewed.json", "clicked.json"))
    assert not file.refresh()
    (path.parent / "clicked.json").write_text("{}")
    assert file.refresh()


def add_forum(path: Path) -> None:
    path.write_text(DOCUMENT + "  forum: {tier: t}\n")


async def watch_an_edit(path: Path, interval: float, *, hang_up: bool = False) -> Registry:
    """What is put in force when the file is edited while it is watched."""
    file, put_in_force = RegistryFile(path), asyncio.Event()
    file.subscribe(lambda _: put_in_force.set())
    watching = asyncio.create_task(file.watch(interval))
    await asyncio.sleep(0)  # to its first wait
    add_forum(path)
    if hang_up:
        os.kill(os.getpid(), signal.SIGHUP)
    async with asyncio.timeout(DEADLINE):
        await put_in_force.wait()
    watching.cancel()
    return file.current


def test_watching_notices_an_edit_by_itself(path: Path) -> None:
    assert "forum" in asyncio.run(watch_an_edit(path, interval=0.01)).tenants


def test_a_hangup_makes_it_look_at_once(path: Path) -> None:
    assert "forum" in asyncio.run(watch_an_edit(path, interval=10 * DEADLINE, hang_up=True)).tenants


def test_watching_works_without_signals_outside_the_main_thread(path: Path) -> None:
    with ThreadPoolExecutor(1) as other:
        found = other.submit(asyncio.run, watch_an_edit(path, interval=0.01)).result(DEADLINE)
    assert "forum" in found.tenants
