"""Posts seen, from a request through Kafka and a worker to the questions about them, on real servers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from time import time_ns
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from eventstore.events.moment import parse_moment, rfc3339
from eventstore.events.validate import micros_of
from eventstore.registry import load_registry
from eventstore.store.session import close, connect
from eventstore.tenancy import KeyUse
from tests.builders import DAY_MS
from tests.gateways import Answer, GatewayUnderTest, key, running_gateway, with_keys
from tests.own_topics import records_of
from tests.stacks import RunningStack
from tests.world import World, own_world

pytestmark = pytest.mark.integration

WRITE, READ = key("shop", KeyUse.WRITE), key("shop", KeyUse.READ)
NOW_MS = time_ns() // 1_000_000
LIMITED = 30


@pytest.fixture(scope="module")
def world(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    tenants = {
        "shop": with_keys("shop", tier="t30"),
        "forum": with_keys("forum", tier="t15", rate={"per_second": 1, "burst": LIMITED}),
    }
    with own_world(stack, tmp_path_factory.mktemp("impressions"), tenants) as made:
        made.start_worker()
        yield made


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[GatewayUnderTest]:
    with running_gateway(world, EVENTSTORE_READER__REQUEST_TIMEOUT="10", EVENTSTORE_GATEWAY__READ_TIMEOUT="20") as made:
        yield made


def ask(gateway: GatewayUnderTest, uid: str, question: str) -> Answer:
    return gateway.ask("GET", f"/v1/tenants/shop/users/{quote(uid, safe='')}/{question}", key=READ)


def seen(gateway: GatewayUnderTest, uid: str, *posts: str) -> dict[str, tuple[int, int]]:
    """When each was seen first and last."""
    answer = ask(gateway, uid, f"seen?posts={quote(','.join(posts))}")
    assert answer.status == 200, answer.body
    return {post: (millis(told["first"]), millis(told["last"])) for post, told in answer.json["seen"].items()}


def millis(text: str) -> int:
    return micros_of(parse_moment(text)) // 1_000


def show(gateway: GatewayUnderTest, uid: str, **body: Any) -> Answer:
    return gateway.post("/v1/impressions", {"uid": uid} | body, key=WRITE)


def test_what_is_posted_is_one_record_and_is_seen_first_and_last_in_whatever_order_it_came(
    world: World, gateway: GatewayUnderTest
) -> None:
    uid, hour = "u 1/ä", 3_600_000
    before = len(records_of(world.settings.kafka, world.settings.topics.events))
    answer = show(gateway, uid, posts=["p1", {"id": "größe", "at": NOW_MS - 9 * DAY_MS}], at=NOW_MS - hour)
    assert (answer.status, answer.json) == (200, {"accepted": 2})
    records = records_of(world.settings.kafka, world.settings.topics.events)
    assert [record.key for record in records[before:]] == [f"shop:{uid}".encode()]
    for at in (NOW_MS, NOW_MS - 12 * DAY_MS, NOW_MS - 2 * hour):
        assert show(gateway, uid, posts=["p1"], at=rfc3339(at)).status == 200
    world.wait_until_committed()

    assert seen(gateway, uid, "p1", "p2", "größe") == {
        "p1": (NOW_MS - 12 * DAY_MS, NOW_MS),
        "größe": (NOW_MS - 9 * DAY_MS, NOW_MS - 9 * DAY_MS),
    }


def test_a_client_that_names_no_time_or_header_has_seen_them_now(world: World, gateway: GatewayUnderTest) -> None:
    """As a page sends it that is being closed."""
    body = {"uid": "leaving", "posts": ["p1"], "writeKey": WRITE}
    assert gateway.post("/v1/impressions", body, content_type="text/plain").status == 200
    world.wait_until_committed()
    first, last = seen(gateway, "leaving", "p1")["p1"]
    assert NOW_MS <= first == last


def test_all_of_500_candidates_are_looked_for_in_every_bucket(world: World, gateway: GatewayUnderTest) -> None:
    ids = [f"post-{number:04}" for number in range(500)]
    for days in (0, 14):
        posts = [{"id": each, "at": NOW_MS - days * DAY_MS} for each in ids[: 400 - 20 * days]]
        assert show(gateway, "many", posts=posts).status == 200
    world.wait_until_committed()
    found = seen(gateway, "many", *ids)
    assert found == dict.fromkeys(ids[:400], (NOW_MS, NOW_MS)) | dict.fromkeys(
        ids[:120], (NOW_MS - 14 * DAY_MS, NOW_MS)
    )
    assert ask(gateway, "many", "seen?posts=" + ",".join([*ids, "one-more"])).status == 400


def test_pages_follow_one_another_and_end_with_the_range(world: World, gateway: GatewayUnderTest) -> None:
    shown = {f"p{number:03}": NOW_MS - number * DAY_MS // 2 for number in range(50)}
    assert show(gateway, "reader", posts=[{"id": post, "at": at} for post, at in shown.items()]).status == 200
    world.wait_until_committed()

    def pages(question: str) -> Iterator[list[str]]:
        cursor = ""
        while cursor is not None:
            answer = ask(gateway, "reader", f"impressions?limit=7{question}{cursor and f'&cursor={cursor}'}")
            assert answer.status == 200, answer.body
            yield [each["id"] for each in answer.json["impressions"]]
            cursor = answer.json["cursor"]

    everything = list(chain.from_iterable(pages("")))
    assert sorted(everything) == sorted(shown)
    assert sorted(chain.from_iterable(pages("&last=7d"))) == sorted(
        post for post, at in shown.items() if at > NOW_MS - 7 * DAY_MS
    )
    assert ask(gateway, "other", "impressions?cursor=" + "x").status == 400


def test_a_plain_producer_may_publish_the_same_record_and_bad_ones_are_dead_letters(
    world: World, gateway: GatewayUnderTest
) -> None:
    good = {"tenant": "shop", "uid": "plain", "at": NOW_MS, "posts": ["p1"]}
    bad = {"tenant": "shop", "uid": "plain", "posts": ["p2", {"id": "", "at": NOW_MS}], "at": NOW_MS}
    old = good | {"at": NOW_MS - 31 * DAY_MS, "posts": ["p3"]}
    world.publish([(b"shop:plain", msgspec.json.encode(each)) for each in (good, bad, old)])
    world.wait_until_committed()
    assert seen(gateway, "plain", "p1", "p2", "p3") == {"p1": (NOW_MS, NOW_MS)}
    letters = [letter for letter in world.dead_letters() if b"plain" in (letter.value or b"")]
    assert [letter.reason for letter in letters] == ["limit"]


def verified(world: World, *options: str) -> dict[str, int]:
    """What `replay verify` counts over everything in the topic."""
    command = [
        sys.executable,
        "-m",
        "eventstore",
        "replay",
        "verify",
        "--from-earliest",
        "--to-latest",
        "--json",
        *options,
    ]
    done = subprocess.run(command, env=world.environment, stdout=subprocess.PIPE, check=False)
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])["counts"]
    return counts


def test_verify_proves_the_rows_and_stores_again_what_is_gone(world: World, gateway: GatewayUnderTest) -> None:
    times = [NOW_MS - 3_000, NOW_MS - 12 * DAY_MS, NOW_MS - 1_000]
    for at in times:
        assert show(gateway, "proved", posts=["p1"], at=at).status == 200
    world.wait_until_committed()
    before, sound = seen(gateway, "proved", "p1"), verified(world)
    assert set(sound) <= {"records", "identical", "expired", "limit"}

    session = connect(load_registry(world.registry).tiers["t30"].cluster, request_timeout=30.0)
    session.execute("TRUNCATE impressions")
    close(session)
    assert seen(gateway, "proved", "p1") == {}
    counts = verified(world, "--repair")
    assert counts["missing"] == counts["repaired"] == sound["identical"]
    assert seen(gateway, "proved", "p1") == before == {"p1": (times[1], times[2])}


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"posts": []}, 400, "limit: posts: expected 1 to 1000, got 0"),
        ({"posts": ["p", ""]}, 400, "limit: posts[1]: id: expected 1 to 256 bytes"),
        ({"posts": ["p"], "at": NOW_MS + 2 * DAY_MS}, 400, "timestamp: posts[0]: expected at most"),
        ({"posts": ["p"], "tenant": "forum"}, 400, "tenant: expected 'shop'"),
        ({"posts": "p"}, 400, "Expected `array`"),
        ({"posts": ["p"], "more": 1}, 400, "unknown field `more`"),
        ({"posts": [f"{number:036}" for number in range(1_000)]}, 413, "at most 32768 bytes"),
    ],
)
def test_what_no_worker_would_store_is_refused_at_the_door(
    gateway: GatewayUnderTest, body: dict[str, Any], status: int, told: str
) -> None:
    answer = show(gateway, "u1", **body)
    assert answer.status == status
    assert told in answer.json["detail"]


def test_impressions_count_against_their_tenants_rate(gateway: GatewayUnderTest) -> None:
    forum = key("forum", KeyUse.WRITE)
    body = {"uid": "u", "posts": ["p"]}
    assert {gateway.post("/v1/impressions", body, key=forum).status for _ in range(LIMITED + 5)} == {200, 429}
