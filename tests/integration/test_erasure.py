import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from typer.testing import CliRunner, Result

from eventstore.cli.app import build
from eventstore.events.erasure import Erasure, Erasures
from eventstore.events.stored import SeenPost
from eventstore.registry import load_registry
from eventstore.store.session import close, connect
from eventstore.stream.erasures import ErasureTable
from eventstore.stream.table import TopicTable
from eventstore.timeline.connect import open_timeline
from tests.builders import DAY_MS, envelope
from tests.stacks import RunningStack
from tests.waiting import until
from tests.world import World, own_world

pytestmark = pytest.mark.integration

TENANTS = {"shop": {"tier": "t30", "latest": ["product_viewed"]}, "forum": {"tier": "t15"}}
NOW_MS = time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def world(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with own_world(stack, tmp_path_factory.mktemp("world"), TENANTS) as made:
        made.start_worker()
        yield made


@pytest.fixture
def uid() -> str:
    return f"u-{uuid4().hex[:8]}"


def run(world: World, *arguments: str, registry: Path | None = None) -> Result:
    other = {} if registry is None else {"EVENTSTORE_REGISTRY": str(registry)}
    return CliRunner(env=world.environment | {"COLUMNS": "200"} | other).invoke(build(["erase", "erasures"]), arguments)


@pytest.fixture
def one_away(world: World, tmp_path: Path) -> Path:
    """The world's registry as somebody sees it to whom the cluster c15 does not answer."""
    document = yaml.safe_load(world.registry.read_text("utf-8"))
    document["clusters"]["c15"]["port"] = 1
    made = tmp_path / "tenants.yaml"
    made.write_text(yaml.safe_dump(document), "utf-8")
    return made


def ran(world: World, *arguments: str) -> dict[str, Any]:
    result = run(world, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def publish(world: World, uid: str, *ages_ms: int, tenant: str = "shop") -> None:
    key = f"{tenant}:{uid}".encode()
    world.publish([
        (key, envelope(tenant=tenant, uid=uid, timestamp=NOW_MS - age, message_id=f"{age}")) for age in ages_ms
    ])  # fmt: skip


def rows(world: World, uid: str, tenant: str = "shop") -> int:
    return world.census().users.get((tenant, uid), 0)


def show(world: World, uid: str, posts: dict[str, int]) -> None:
    """Publish when the user has seen these posts, and wait until it is stored."""
    record = {"tenant": "shop", "uid": uid, "posts": [{"id": post, "at": at} for post, at in posts.items()]}
    world.publish([(f"shop:{uid}".encode(), json.dumps(record).encode())])
    world.wait_until_caught_up()


def seen(world: World, uid: str) -> dict[str, tuple[int, int]]:
    """When the user has seen posts, first and last."""

    async def ask() -> dict[str, SeenPost]:
        async with open_timeline(world.settings, lambda: load_registry(world.registry)) as timeline:
            return await timeline.posts.seen("shop", uid, ["p1", "p2", "p3"])

    return {post: (each.first_ms, each.last_ms) for post, each in asyncio.run(ask()).items()}


def newest(world: World, uid: str) -> list[int]:
    """How old the user's newest event is; nothing if none is at hand."""
    tier = load_registry(world.registry).tiers["t30"]
    session = connect(tier.cluster)
    try:
        found = session.execute("SELECT writetime(item) FROM latest WHERE uid = %s AND tenant = 'shop'", (uid,))
        return [NOW_MS - written // 1_000 for (written,) in found]
    finally:
        close(session)


def write_late(world: World, cluster: str, uid: str, event_ms: int) -> None:
    """What a worker does that has not heard of an erasure yet."""
    tier = next(t for t in load_registry(world.registry).tiers.values() if t.cluster.name == cluster)
    session = connect(tier.cluster)
    try:
        session.execute(
            "INSERT INTO events (uid, tenant, bid, ts, eid, event, properties, context) "
            "VALUES (%s, %s, %s, %s, %s, 'seen', '{}', '{}') USING TIMESTAMP %s",
            (uid, "shop", tier.buckets.bid(event_ms), event_ms, uuid4(), event_ms * 1_000),
        )
    finally:
        close(session)


def test_without_execute_nothing_is_deleted_and_what_is_stored_where_is_shown(world: World, uid: str) -> None:
    publish(world, uid, 0, 20 * DAY_MS, 20 * DAY_MS + 1)
    until(lambda: rows(world, uid) == 3, "the rows")
    shown = run(world, "erase", "shop", uid)
    assert shown.exit_code == 0
    assert "c30" in shown.stdout
    assert "--execute" in shown.stderr
    found = ran(world, "erase", "shop", uid)["found"]
    assert [(each["cluster"], each["rows"]) for each in found] == [("c30", 2), ("c30", 1)]
    assert rows(world, uid) == 3
    assert uid not in run(world, "erasures", "list").stdout


def test_an_erased_past_stays_away_and_what_is_newer_is_stored(world: World, uid: str) -> None:
    moment = NOW_MS - DAY_MS
    publish(world, uid, 2 * DAY_MS, 25 * DAY_MS, 1_000)
    publish(world, f"{uid}-other", 2 * DAY_MS)
    until(lambda: rows(world, uid) == 3 and rows(world, f"{uid}-other") == 1, "the rows")
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment // 1_000))

    done = ran(world, "erase", "shop", uid, "--to", at, "--execute")
    assert sum(each["rows"] for each in done["left"]) == 0
    assert sum(each["newer"] for each in done["left"]) == 1
    assert (rows(world, uid), newest(world, uid)) == (1, [1_000])
    assert rows(world, f"{uid}-other") == 1

    publish(world, uid, 2 * DAY_MS, 25 * DAY_MS, 3 * DAY_MS)  # a producer, a replay, a dead letter: all come this way
    publish(world, uid, 2_000)
    until(lambda: rows(world, uid) == 2, "the newer event")
    world.wait_until_caught_up()
    assert rows(world, uid) == 2

    world.start_worker()  # another worker knows of it before its first record
    publish(world, uid, 4 * DAY_MS)
    world.wait_until_caught_up()
    assert rows(world, uid) == 2


def test_an_older_row_that_is_written_after_the_delete_is_not_seen(world: World, uid: str) -> None:
    publish(world, uid, DAY_MS)
    until(lambda: rows(world, uid) == 1, "the row")
    until(lambda: newest(world, uid) == [DAY_MS], "the newest")
    ran(world, "erase", "shop", uid, "--execute")
    assert newest(world, uid) == []
    write_late(world, "c30", uid, NOW_MS - DAY_MS - 5)
    write_late(world, "c30", uid, NOW_MS - 12 * DAY_MS)  # of a bucket where nothing stood
    assert rows(world, uid) == 0


def test_what_an_erased_user_has_seen_goes_too_and_what_is_seen_later_is_known(world: World, uid: str) -> None:
    old = {"p1": NOW_MS - 2 * DAY_MS, "p2": NOW_MS - 25 * DAY_MS}
    show(world, uid, old | {"p3": NOW_MS - 1_000})
    assert seen(world, uid) == {post: (at, at) for post, at in (old | {"p3": NOW_MS - 1_000}).items()}
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((NOW_MS - DAY_MS) // 1_000))

    ran(world, "erase", "shop", uid, "--to", at, "--execute")
    # in its bucket the delete shadows the first time of p3: the last one stands for it
    assert seen(world, uid) == {"p3": (NOW_MS - 1_000, NOW_MS - 1_000)}
    show(world, uid, old)  # a replay
    show(world, uid, {"p1": NOW_MS})
    assert seen(world, uid) == {"p1": (NOW_MS, NOW_MS), "p3": (NOW_MS - 1_000, NOW_MS - 1_000)}


def test_rows_that_a_tenant_left_behind_on_another_tier_go_too(world: World, uid: str) -> None:
    write_late(world, "c15", uid, NOW_MS - DAY_MS)
    found = ran(world, "erase", "shop", uid, "--execute")
    assert [(each["cluster"], each["rows"]) for each in found["found"]] == [("c15", 1)]
    assert rows(world, uid) == 0


def test_an_erasure_is_never_shortened_and_may_be_repeated(world: World, uid: str) -> None:
    publish(world, uid, DAY_MS)
    until(lambda: rows(world, uid) == 1, "the row")
    first = ran(world, "erase", "shop", uid, "--execute")["erasure"]
    again = ran(world, "erase", "shop", uid, "--to", "2026-01-01T00:00:00Z", "--execute")["erasure"]
    assert again["to_micros"] == first["to_micros"]


def test_a_cluster_that_is_away_owes_its_delete_and_holds_up_no_other(world: World, uid: str, one_away: Path) -> None:
    write_late(world, "c30", uid, NOW_MS - DAY_MS)
    write_late(world, "c15", uid, NOW_MS - DAY_MS)
    looked = run(world, "erase", "shop", uid, registry=one_away)
    assert looked.exit_code == 1
    assert "not looked at: cluster c15" in looked.stderr
    done = run(world, "erase", "shop", uid, "--execute", registry=one_away)
    assert done.exit_code == 1
    assert "still owed on c15" in done.stderr
    assert rows(world, uid) == 1
    standing = ErasureTable(world.settings.kafka, world.settings.topics.erasures).find("shop", uid)
    assert standing is not None, "what comes in from now on is left out everywhere"
    assert ran(world, "erase", "shop", uid, "--execute")["failures"] == {}
    assert rows(world, uid) == 0


def test_of_two_erasures_at_the_same_time_the_longer_one_stands(world: World, uid: str) -> None:
    """Both have looked and found none; the shorter one is recorded last."""
    settings = world.settings
    first, second = (ErasureTable(settings.kafka, settings.topics.erasures) for _ in range(2))
    longer, shorter = (Erasure("shop", uid, moment, NOW_MS) for moment in (NOW_MS * 1_000, NOW_MS * 1_000 - 10))
    assert first.record(longer) == longer
    assert second.record(shorter) == longer
    assert first.find("shop", uid) == longer
    raw = TopicTable(settings.kafka, settings.topics.erasures).read()
    assert json.loads(raw[f"shop:{uid}"])["to_micros"] == longer.to_micros, "compaction keeps the last entry"


def test_after_a_restore_every_erasure_is_repeated(world: World, uid: str) -> None:
    """A backup knows nothing of later erasures: its rows come back without the tombstones."""
    table = ErasureTable(world.settings.kafka, world.settings.topics.erasures)
    write_late(world, "c30", uid, NOW_MS - DAY_MS)
    table.record(Erasure("shop", uid, NOW_MS * 1_000, NOW_MS))
    planned = run(world, "erasures", "repeat", "--cluster", "c30")
    assert "to delete" in planned.stdout
    assert rows(world, uid) == 1
    assert run(world, "erasures", "repeat", "--cluster", "c30", "--execute").exit_code == 0
    assert rows(world, uid) == 0


def test_an_erasure_that_no_event_can_reach_any_more_is_forgotten(world: World, uid: str) -> None:
    table = ErasureTable(world.settings.kafka, world.settings.topics.erasures)
    table.record(Erasure("shop", f"{uid}-old", (NOW_MS - 31 * DAY_MS) * 1_000, NOW_MS))
    table.record(Erasure("shop", f"{uid}-new", (NOW_MS - 29 * DAY_MS) * 1_000, NOW_MS))
    assert [each["uid"] for each in ran(world, "erasures", "prune")["erasures"]] == [f"{uid}-old"]
    assert table.find("shop", f"{uid}-old") is not None
    ran(world, "erasures", "prune", "--execute")
    assert table.find("shop", f"{uid}-old") is None
    assert table.find("shop", f"{uid}-new") is not None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["erase", "shopp", "nobody"], "shopp"),
        (["erase", "shop", ""], "uid"),
        (["erase", "shop", "u1", "--to", "2100-01-01T00:00:00Z"], "2100-01-01"),
        (["erasures", "repeat", "--cluster", "c99"], "c99"),
    ],
)
def test_a_call_that_cannot_be_meant_is_refused_before_anything_is_recorded(
    world: World, arguments: list[str], said: str
) -> None:
    table = ErasureTable(world.settings.kafka, world.settings.topics.erasures)
    before = table.read()
    result = run(world, *arguments)
    assert result.exit_code != 0
    assert said in str(result.exception)
    assert table.read() == before


def test_an_entry_of_an_unknown_kind_is_an_error_and_never_taken_for_no_erasure(world: World, uid: str) -> None:
    raw = TopicTable(world.settings.kafka, world.settings.topics.erasures)
    raw.put(f"shop:{uid}", b'{"to": "tomorrow"}')

    async def follow() -> None:
        async with ErasureTable(world.settings.kafka, world.settings.topics.erasures).follow(Erasures()):
            pass

    follows: Callable[[], None] = lambda: asyncio.run(follow())  # noqa: E731
    try:
        for refused in (follows, lambda: ErasureTable(world.settings.kafka, raw.topic).read()):
            with pytest.raises(Exception, match=f"shop:{uid}.*upgrade"):
                refused()
    finally:
        raw.put(f"shop:{uid}", None)
