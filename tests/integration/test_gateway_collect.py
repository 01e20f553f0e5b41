"""Events over HTTP into a real Kafka: what is answered with 200 is there, and what is refused can be explained."""

import gzip
import json
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import segment.analytics
import yaml

from eventstore.events import Event, decode
from eventstore.tenancy import KeyUse
from tests.gateways import GatewayUnderTest, key, running_gateway, with_keys
from tests.own_topics import records_of
from tests.stacks import RunningStack
from tests.waiting import until
from tests.world import World, own_world

pytestmark = pytest.mark.integration

SCHEMAS = Path(__file__).parent.parent.parent / "schemas"
RECORDED = Path(__file__).parent.parent / "data" / "analytics.js"
WRITE, READ = key("shop", KeyUse.WRITE), key("shop", KeyUse.READ)


@pytest.fixture(scope="module")
def world(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("collect")
    strict = with_keys("strict", tier="t15", events={"paid": str(SCHEMAS / "events" / "product_viewed.json")},
                       other_events="refuse")  # fmt: skip
    tenants = {
        "shop": with_keys("shop", tier="t30"),
        "forum": with_keys("forum", tier="t15", rate={"per_second": 5, "burst": 5}),
        "strict": strict,
        "gone": with_keys("gone", tier="t15", enabled=False),
    }
    with own_world(stack, folder, tenants) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[GatewayUnderTest]:
    with running_gateway(world, "--only", "collect") as made:
        yield made


def arrived(world: World) -> list[Event]:
    """Everything in the event topic."""
    events = [decode(record.value) for record in records_of(world.settings.kafka, world.settings.topics.events)]
    return [event for event in events if isinstance(event, Event)]


def published(world: World) -> dict[str, Event]:
    """The same, by message id."""
    return {str(event.message_id): event for event in arrived(world)}


def call(**fields: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Viewed", "userId": "u1", "messageId": str(uuid4())} | fields


def test_an_event_that_is_answered_with_200_is_in_kafka(world: World, gateway: GatewayUnderTest) -> None:
    sent = call(properties={"sku": "Ä1"})
    answer = gateway.post("/v1/track", sent, key=WRITE)
    assert (answer.status, answer.json["accepted"]) == (200, 1)
    event = published(world)[sent["messageId"]]
    assert (event.tenant, event.uid, event.event) == ("shop", "u1", "Viewed")
    assert json.loads(bytes(event.properties)) == {"sku": "Ä1"}


def test_in_a_batch_the_bad_ones_are_told_and_the_good_ones_accepted(world: World, gateway: GatewayUnderTest) -> None:
    good, bad = call(), call(event=None)
    answer = gateway.post("/v1/batch", {"batch": [bad, good]}, key=WRITE)
    assert answer.status == 200
    assert (answer.json["success"], answer.json["accepted"]) == (False, 1)
    assert [(each["index"], each["reason"]) for each in answer.json["rejected"]] == [(0, "malformed")]
    assert good["messageId"] in published(world)
    letters = [letter for letter in world.dead_letters() if bad["messageId"].encode() in (letter.value or b"")]
    assert [letter.reason for letter in letters] == ["malformed"]


def test_a_single_bad_event_is_answered_with_400(gateway: GatewayUnderTest) -> None:
    assert gateway.post("/v1/track", call(userId=None), key=WRITE).status == 400


def test_a_tenants_own_rules_are_told_at_the_door(world: World, gateway: GatewayUnderTest) -> None:
    answer = gateway.post("/v1/track", call(event="other"), key=key("strict", KeyUse.WRITE))
    assert (answer.status, answer.json["rejected"][0]["reason"]) == (400, "unknown_event")
    answer = gateway.post("/v1/track", call(event="paid", properties={}), key=key("strict", KeyUse.WRITE))
    assert answer.json["rejected"][0]["reason"] == "schema"


def test_segments_python_library_works_with_nothing_changed_but_its_host(
    world: World, gateway: GatewayUnderTest
) -> None:
    failures: list[Any] = []
    client = segment.analytics.Client(
        WRITE, host=gateway.address, on_error=lambda error, _: failures.append(error), gzip=True, max_retries=0
    )
    for number in range(150):
        client.track(f"sdk-{number}", "Viewed", {"number": number}, context={"ip": "1.2.3.4"})
    client.identify("sdk-0", {"plan": "pro"})
    client.page("sdk-0", "docs", "Home", {"url": "/"})
    client.group("sdk-0", "g1", {"size": 3})
    client.alias("anon", "sdk-0")
    client.flush()
    client.shutdown()
    assert not failures
    events = [event for event in published(world).values() if event.uid.startswith("sdk-")]
    assert len({event.uid for event in events if event.event == "Viewed"}) == 150
    named = {event.event: json.loads(bytes(event.properties)) for event in events if event.event != "Viewed"}
    assert named["identify"] == {"plan": "pro"}
    assert named["page"] == {"name": "Home", "category": "docs", "url": "/"}
    assert named["group"] == {"groupId": "g1", "size": 3}
    assert named["alias"] == {"previousId": "anon"}


def test_a_browsers_request_needs_no_header_of_ours(world: World, gateway: GatewayUnderTest) -> None:
    """As older releases of Segment's library for browsers send it: the key in the body, so that no preflight is asked."""
    message_id = f"ajs-next-{uuid4().hex}"
    body = {
        "timestamp": "2026-09-21T10:00:00.000Z", "integrations": {}, "type": "page", "name": None,
        "properties": {"path": "/", "referrer": "", "search": "", "title": "Shop", "url": "https://shop.example/"},
        "context": {"page": {"path": "/"}, "userAgent": "Mozilla/5.0", "locale": "en-GB",
                    "library": {"name": "analytics.js", "version": "npm:next-1.70.0"}, "timezone": "Europe/Berlin"},
        "messageId": message_id, "anonymousId": "0f7a5b1e-9f39-4c3a-8f1e-1c7c4f4f0a11", "userId": None,
        "writeKey": WRITE, "sentAt": "2026-09-21T10:00:00.100Z", "_metadata": {"bundled": ["Segment.io"]},
    }  # fmt: skip
    answer = gateway.post("/v1/p", body, content_type="text/plain", origin="https://shop.example")
    assert answer.status == 200
    event = published(world)[message_id]
    assert (event.uid, event.event) == ("0f7a5b1e-9f39-4c3a-8f1e-1c7c4f4f0a11", "page")


@pytest.fixture(scope="module")
def open_to_pages(world: World) -> Iterator[GatewayUnderTest]:
    with running_gateway(
        world, "--only", "collect", EVENTSTORE_GATEWAY__CORS_ORIGINS='["https://shop.example"]'
    ) as made:
        yield made


def sent_as_recorded(gateway: GatewayUnderTest, recorded: bytes) -> HTTPResponse:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as connection:
        connection.sendall(recorded)
        answer = HTTPResponse(connection)
        answer.begin()
        answer.read()
        return answer


def test_what_chrome_sends_for_segments_library_arrives_as_it_was_sent(
    world: World, open_to_pages: GatewayUnderTest
) -> None:
    requests = [(RECORDED / f"{name}.http").read_bytes() for name in ("2-track", "4-retry")]
    bodies = [json.loads(each.partition(b"\r\n\r\n")[2]) for each in requests]
    for each in requests:
        answer = sent_as_recorded(open_to_pages, each)
        assert (answer.status, answer.getheader("access-control-allow-origin")) == (200, "https://shop.example")
    events = [event for event in arrived(world) if event.message_id == bodies[0]["messageId"]]
    for sent, event in zip(bodies, events, strict=True):
        assert (event.tenant, event.uid, event.event) == ("shop", "u-4711", "Product Added")
        assert json.loads(bytes(event.properties)) == sent["properties"]
        assert json.loads(bytes(event.context)) == sent["context"] | {"anonymousId": "anonymous-1"}


@pytest.mark.parametrize("name", ["1-preflight", "3-preflight-of-retry"])
def test_chrome_is_allowed_every_header_that_segments_library_sets(open_to_pages: GatewayUnderTest, name: str) -> None:
    recorded = (RECORDED / f"{name}.http").read_bytes()
    asked = recorded.decode().partition("Access-Control-Request-Headers: ")[2].partition("\r\n")[0]
    answer = sent_as_recorded(open_to_pages, recorded)
    assert answer.getheader("access-control-allow-origin") == "https://shop.example"
    assert set(asked.split(",")) <= set(answer.getheader("access-control-allow-headers", "").split(", "))


def test_our_own_envelope_may_come_alone_in_an_array_or_in_lines(world: World, gateway: GatewayUnderTest) -> None:
    ids = [str(uuid4()) for _ in range(1_204)]
    envelopes = [{"uid": "own", "event": "seen", "message_id": each} for each in ids]
    assert gateway.post("/v1/events", envelopes[0] | {"tenant": "shop"}, key=WRITE).json["accepted"] == 1
    assert gateway.post("/v1/events", envelopes[1:4], key=WRITE).json["accepted"] == 3
    lines = b"\n".join(map(msgspec.json.encode, envelopes[4:]))
    packed = gateway.ask("POST", "/v1/events", gzip.compress(lines), key=WRITE,
                         content_type="application/x-ndjson", content_encoding="gzip")  # fmt: skip
    assert packed.json["accepted"] == 1_200
    assert set(ids) <= published(world).keys()


def test_an_envelope_of_another_tenant_is_refused(gateway: GatewayUnderTest) -> None:
    answer = gateway.post("/v1/events", {"tenant": "forum", "uid": "u", "event": "e"}, key=WRITE)
    assert (answer.status, answer.json["rejected"][0]["reason"]) == (400, "key_mismatch")


@pytest.mark.parametrize(
    "header", [f"Basic {b64encode(f'{WRITE}:'.encode()).decode()}", f"Bearer {WRITE}", f"bearer {WRITE}"]
)
def test_a_key_may_come_as_basic_or_bearer(gateway: GatewayUnderTest, header: str) -> None:
    assert gateway.post("/v1/track", call(), authorization=header).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {WRITE}x"}, 401),
        ({"authorization": "Basic %%%"}, 401),
        ({"authorization": f"Digest {WRITE}"}, 401),
        ({"authorization": f"Bearer {READ}"}, 403),
        ({"authorization": f"Bearer {key('gone', KeyUse.WRITE)}"}, 403),
    ],
)
def test_no_key_or_a_wrong_one_opens_nothing(gateway: GatewayUnderTest, headers: dict[str, str], status: int) -> None:
    assert gateway.post("/v1/batch", {"batch": [call()]}, **headers).status == status


def test_a_key_that_is_revoked_opens_nothing_soon_after(world: World, gateway: GatewayUnderTest) -> None:
    world.edit_registry(fleeting=with_keys("fleeting", tier="t15"))
    fleeting = key("fleeting", KeyUse.WRITE)
    until(lambda: gateway.post("/v1/track", call(), key=fleeting).status == 200, "the new key to open")
    document = yaml.safe_load(world.registry.read_text("utf-8"))
    document["tenants"]["fleeting"]["keys"].pop(0)
    world.registry.write_text(yaml.safe_dump(document), "utf-8")
    until(lambda: gateway.post("/v1/track", call(), key=fleeting).status == 401, "the revoked key to open nothing")


def test_a_tenant_over_its_rate_is_told_when_to_come_back_and_others_are_not(gateway: GatewayUnderTest) -> None:
    forum = key("forum", KeyUse.WRITE)
    answers = [gateway.post("/v1/batch", {"batch": [call()] * 5}, key=forum) for _ in range(4)]
    refused = [answer for answer in answers if answer.status == 429]
    assert refused
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert gateway.post("/v1/track", call(), key=WRITE).status == 200


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/track", b"", {}, 400),
        ("/v1/track", b"x" * 40_000, {}, 413),
        ("/v1/batch", b"[" * 400_000, {}, 400),
        ("/v1/batch", b"[" * 10_000_000, {}, 413),
        ("/v1/batch", b'{"batch":7}', {}, 400),
        ("/v1/batch", b"\xff\xfe", {}, 400),
        ("/v1/batch", gzip.compress(b" " * 50_000_000), {"content_encoding": "gzip"}, 413),
        ("/v1/batch", gzip.compress(b"{}")[:-4], {"content_encoding": "gzip"}, 400),
        ("/v1/batch", b"{}", {"content_encoding": "gzip"}, 400),
        ("/v1/batch", b"{}", {"content_encoding": "br"}, 415),
        ("/v1/events", b"[" * 5_000_000, {}, 400),
        ("/v1/events", b"{" * 40_000, {"content_type": "application/x-ndjson"}, 413),
        ("/v1/nothing", b"{}", {}, 404),
    ],
)
def test_what_cannot_be_taken_is_refused_with_a_reason(
    gateway: GatewayUnderTest, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = gateway.ask("POST", path, body, key=WRITE, **headers)
    assert answer.status == status
    assert "detail" in answer.body.decode()


def test_half_a_body_and_slow_headers_hold_nobody_up(world: World) -> None:
    with running_gateway(
        world, "--only", "collect", EVENTSTORE_GATEWAY__BODY_TIMEOUT="0.5", EVENTSTORE_GATEWAY__HEADER_TIMEOUT="0.5"
    ) as gateway:
        half = f"POST /v1/batch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {WRITE}\r\ncontent-length: 100\r\n\r\n{{"
        slow = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(50)]
        for number, each in enumerate(slow):
            each.sendall(half.encode() if number % 2 else b"POST /v1/batch HTTP/1.1\r\nhost: x\r\nx-a: ")
        assert gateway.post("/v1/track", call(), key=WRITE).status == 200
        for number, each in enumerate(slow):
            each.settimeout(30)
            told = each.recv(1_000)
            assert (b"408" in told) if number % 2 else (told == b"" or b"408" in told)
            each.close()


def test_no_accepted_event_is_lost_and_no_request_cut_when_it_is_told_to_stop(world: World) -> None:
    accepted: list[str] = []
    cut: list[Exception] = []
    with running_gateway(world, "--only", "collect") as gateway:
        busy = threading.Event()

        def send() -> None:
            while True:
                calls = [call() for _ in range(20)]
                try:
                    answer = gateway.post("/v1/batch", {"batch": calls}, key=WRITE)
                except ConnectionRefusedError:
                    return
                except OSError as error:  # accepted by the kernel, never read by the gateway
                    cut.append(error)
                    return
                assert answer.status == 200
                accepted.extend(each["messageId"] for each in calls)
                busy.set()

        senders = [threading.Thread(target=send) for _ in range(8)]
        for each in senders:
            each.start()
        assert busy.wait(60)
        assert gateway.terminate() == 0
        for each in senders:
            each.join(60)
    assert set(accepted) <= published(world).keys()
    assert all(isinstance(error, ConnectionResetError | BrokenPipeError) for error in cut), cut


def test_pages_of_allowed_origins_may_call_and_others_may_not(world: World) -> None:
    with running_gateway(
        world, "--only", "collect", EVENTSTORE_GATEWAY__CORS_ORIGINS='["https://shop.example"]'
    ) as gateway:
        asked = {"origin": "https://shop.example", "access_control_request_method": "POST"}
        allowed = gateway.ask("OPTIONS", "/v1/track", None, **asked)
        assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (204, "https://shop.example")
        refused = gateway.ask("OPTIONS", "/v1/track", None, **(asked | {"origin": "https://evil.example"}))
        assert "access-control-allow-origin" not in refused.headers
        answer = gateway.post("/v1/track", call(), key=WRITE, origin="https://shop.example")
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_kafka_away_is_told_as_503_and_never_as_200(world: World) -> None:
    with running_gateway(
        world, "--only", "collect", EVENTSTORE_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
        EVENTSTORE_PRODUCER__DELIVERY_TIMEOUT="1", EVENTSTORE_GATEWAY__METRICS_PORT="0",
    ) as gateway:  # fmt: skip
        answer = gateway.post("/v1/track", call(), key=WRITE)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
