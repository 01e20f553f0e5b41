"""Timelines over HTTP from real clusters: pages, exports, counts, and what others' trouble does not change."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import quote
from uuid import uuid4

import pytest
import yaml
from cassandra.concurrent import execute_concurrent_with_args

from eventstore.clock import now_ms
from eventstore.registry import load_registry
from eventstore.store.session import close, connect
from eventstore.tenancy import KeyUse
from tests.builders import DAY_MS, envelope
from tests.gateways import GatewayUnderTest, key, running_gateway, with_keys
from tests.stacks import RunningStack
from tests.waiting import until
from tests.world import World, own_world

pytestmark = pytest.mark.integration

READ = key("shop", KeyUse.READ)
UID = "u 1/ä"
EVENTS = 60
"""One every 8 hours, of a user with a name that needs care in a URL."""
LONG = 5_000
"""Of another user, of a kilobyte each."""
USER = f"/v1/tenants/shop/users/{quote(UID, safe='')}"
INSERT = (
    "INSERT INTO events (tenant, uid, bid, ts, eid, event, properties, context) VALUES ('shop', ?, ?, ?, ?, ?, ?, '{}')"
)


@pytest.fixture(scope="module")
def world(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    tenants = {
        "shop": with_keys("shop", tier="t30", latest=["viewed", "bought"]),
        "forum": with_keys("forum", tier="t15", rate={"per_second": 1, "burst": 2}),
    }
    with own_world(stack, tmp_path_factory.mktemp("read"), tenants) as made:
        store_events(made)
        yield made


def store_events(world: World) -> None:
    tier = load_registry(world.registry).tiers["t30"]
    session = connect(tier.cluster, request_timeout=20.0)
    now = now_ms()
    rows = [(UID, now - n * DAY_MS // 3, "bought" if n % 10 == 0 else "viewed", f'{{"price": 1.50, "n":\n{n}}}')
            for n in range(EVENTS)]  # fmt: skip
    rows += [("long", now - n * 1_000, "viewed", f'{{"text": "{"x" * 1_000}"}}') for n in range(LONG)]
    cells = [(uid, tier.buckets.bid(ts), ts, uuid4(), event, properties) for uid, ts, event, properties in rows]
    execute_concurrent_with_args(session, session.prepare(INSERT), cells, concurrency=64)
    close(session)


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[GatewayUnderTest]:
    with running_gateway(world, "--only", "read", EVENTSTORE_READER__REQUEST_TIMEOUT="10",
                         EVENTSTORE_GATEWAY__READ_TIMEOUT="20") as made:  # fmt: skip
        until(lambda: made.ask("GET", f"{USER}/count", key=READ).status == 200, "the first connection")
        yield made


def test_pages_follow_one_another_to_the_end(gateway: GatewayUnderTest) -> None:
    found, cursor = [], ""
    while True:
        answer = gateway.ask("GET", f"{USER}/events?last=30d&limit=25{cursor}", key=READ)
        assert answer.status == 200
        found += [event["properties"]["n"] for event in answer.json["events"]]
        if answer.json["cursor"] is None:
            break
        cursor = f"&cursor={answer.json['cursor']}"
    assert found == list(range(EVENTS))


def test_stored_json_comes_back_as_it_was_written(gateway: GatewayUnderTest) -> None:
    answer = gateway.ask("GET", f"{USER}/events?limit=1", key=READ)
    assert b'"properties":{"price": 1.50, "n":\n0}' in answer.body
    assert answer.headers["cache-control"] == "no-store"


def test_ranges_and_names_choose_and_are_counted(gateway: GatewayUnderTest) -> None:
    for query, expected in (("last=90m", 1), ("event=bought", 6), ("last=30d", EVENTS), ("to=2020-01-01T00:00:00Z", 0)):
        assert len(gateway.ask("GET", f"{USER}/events?limit=100&{query}", key=READ).json["events"]) == expected
        assert gateway.ask("GET", f"{USER}/count?{query}", key=READ).json == {"count": expected}


def test_an_export_holds_everything_one_event_a_line(gateway: GatewayUnderTest) -> None:
    answer = gateway.ask("GET", "/v1/tenants/shop/users/long/events", key=READ, accept="application/x-ndjson")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    times = [json.loads(line)["timestamp"] for line in answer.body.splitlines()]
    assert len(times) == LONG
    assert times == sorted(times, reverse=True)


def test_exports_that_are_not_read_take_little_memory_and_nobody_elses_place(gateway: GatewayUnderTest) -> None:
    stalled = [HTTPConnection("127.0.0.1", gateway.port, timeout=60) for _ in range(17)]
    for each in stalled:
        each.request(
            "GET", "/v1/tenants/shop/users/long/events?format=ndjson", headers={"authorization": f"Bearer {READ}"}
        )
    statuses = sorted(each.getresponse().status for each in stalled)
    assert statuses == [200] * 16 + [503]
    assert gateway.ask("GET", f"{USER}/count", key=READ).status == 200
    for each in stalled:
        each.close()
    until(
        lambda: gateway.ask("GET", f"{USER}/events?format=ndjson", key=READ).status == 200,
        "the places to be given back",
    )


def test_the_newest_event_of_each_listed_name_is_at_hand(world: World, gateway: GatewayUnderTest) -> None:
    """From Kafka through a worker to the answer; the oldest comes last."""
    user, now = "/v1/tenants/shop/users/latest", now_ms()
    sent = [("viewed", 2), ("bought", 5), ("other", 0), ("viewed", 1), ("viewed", 20 * DAY_MS)]
    world.publish([
        (b"shop:latest", envelope(uid="latest", event=name, timestamp=now - age, properties={"age": age})) for name, age in sent
    ])  # fmt: skip
    worker = world.start_worker()
    until(lambda: gateway.ask("GET", f"{user}/count?last=30d", key=READ).json["count"] == len(sent), "the events", 60)
    worker.terminate()
    assert worker.wait() == 0
    found = gateway.ask("GET", f"{user}/latest", key=READ).json["latest"]
    assert {name: event["properties"]["age"] for name, event in found.items()} == {"viewed": 1, "bought": 5}
    newest = gateway.ask("GET", f"{user}/events?event=viewed&limit=1", key=READ).json["events"]
    assert gateway.ask("GET", f"{user}/latest?events=viewed", key=READ).json == {"latest": {"viewed": newest[0]}}
    assert gateway.ask("GET", f"{USER}/latest?events=bought,viewed", key=READ).json == {"latest": {}}


@pytest.mark.parametrize(
    ("tenant", "query", "told"),
    [
        (
            "shop",
            "events=viewed,other",
            "events: expected names out of tenants.shop.latest (viewed, bought), got 'other'",
        ),
        ("shop", "events=viewed,", "events: expected names with commas between them"),
        ("shop", "event=viewed", "event: expected one of events"),
        ("forum", "", "events: expected a list of names in tenants.forum.latest, found none"),
    ],
)
def test_names_that_are_not_listed_are_not_at_hand(
    gateway: GatewayUnderTest, tenant: str, query: str, told: str
) -> None:
    answer = gateway.ask("GET", f"/v1/tenants/{tenant}/users/u/latest?{query}", key=key(tenant, KeyUse.READ))
    assert answer.status == 400
    assert answer.json["detail"].startswith(told)


def test_a_wrong_question_is_told_by_its_parameter(gateway: GatewayUnderTest) -> None:
    answer = gateway.ask("GET", f"{USER}/events?last=soon", key=READ)
    assert (answer.status, answer.json["error"]) == (400, "bad_request")
    assert answer.json["detail"].startswith("last: expected a duration")


def test_a_tenant_over_its_rate_is_told_when_to_come_back(gateway: GatewayUnderTest) -> None:
    forum = key("forum", KeyUse.READ)
    answers = [gateway.ask("GET", "/v1/tenants/forum/users/u/count", key=forum) for _ in range(5)]
    assert 429 in {answer.status for answer in answers}
    assert gateway.ask("GET", f"{USER}/count", key=READ).status == 200


def test_a_read_past_its_deadline_is_told_so(world: World) -> None:
    with running_gateway(world, "--only", "read", EVENTSTORE_GATEWAY__READ_TIMEOUT="0.0001") as gateway:
        answer = gateway.ask("GET", f"{USER}/events", key=READ)
        assert answer.status == 504
        assert "within 0.0001 s" in answer.json["detail"]


def test_a_dead_clusters_tenants_are_told_and_others_not_troubled(world: World) -> None:
    document = yaml.safe_load(world.registry.read_text("utf-8"))
    dead = world.folder / "dead.yaml"
    document["clusters"]["c15"]["port"] = 1
    dead.write_text(yaml.safe_dump(document), "utf-8")
    with running_gateway(world, "--only", "read", EVENTSTORE_REGISTRY=str(dead)) as gateway:
        until(lambda: gateway.ask("GET", f"{USER}/count", key=READ).status == 200, "the living cluster")
        forum = key("forum", KeyUse.READ)
        answer = gateway.ask("GET", "/v1/tenants/forum/users/u/events", key=forum)
        assert (answer.status, answer.json["error"]) == (503, "unavailable")
        assert "retry-after" in answer.headers
        assert "127.0.0" not in answer.json["detail"]
        assert gateway.ask("GET", f"{USER}/events", key=READ).status == 200


def test_a_cluster_that_the_registry_moves_is_read_where_it_is_now(world: World) -> None:
    moved = world.folder / "moved.yaml"
    document = yaml.safe_load(world.registry.read_text("utf-8"))
    there = document["clusters"]["c30"]["port"]
    document["clusters"]["c30"]["port"] = 1
    moved.write_text(yaml.safe_dump(document), "utf-8")
    with running_gateway(world, "--only", "read", EVENTSTORE_REGISTRY=str(moved)) as gateway:
        assert gateway.ask("GET", f"{USER}/count", key=READ).status == 503
        document["clusters"]["c30"]["port"] = there
        moved.write_text(yaml.safe_dump(document), "utf-8")
        until(lambda: gateway.ask("GET", f"{USER}/count", key=READ).status == 200, "the cluster's new address")
