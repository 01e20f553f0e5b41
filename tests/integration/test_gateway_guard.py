"""What the HTTP edge keeps to itself and whom it turns away, on a real gateway: TLS, headers, logs, keys in bodies, abuse."""

import http.client
import json
import signal
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from eventstore.gateway.service import SAFE
from eventstore.tenancy import KeyUse
from tests.authority import Authority
from tests.feeds import FeedReader
from tests.gateways import GatewayUnderTest, key, running_gateway, with_keys
from tests.own_topics import records_of
from tests.stacks import RunningStack
from tests.waiting import until
from tests.world import World, own_world
from workers.gateway import STRICT_TRANSPORT

pytestmark = pytest.mark.integration

WRITE, READ = key("shop", KeyUse.WRITE), key("shop", KeyUse.READ)
OPEN_REQUESTS, LIVE_FEEDS = 3, 2


@pytest.fixture(scope="module")
def world(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    tenants = {name: with_keys(name, tier="t30") for name in ("shop", "forum", "revoked")}
    with own_world(stack, tmp_path_factory.mktemp("guard"), tenants) as made:
        yield made


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """Two that are free: one to serve on, one for metrics. Held together, or both could be the same."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture(scope="module")
def gateway(world: World, ports: tuple[int, int]) -> Iterator[GatewayUnderTest]:
    port, metrics_port = ports
    settings: dict[str, Any] = {"EVENTSTORE_LOG__LEVEL": "DEBUG", "EVENTSTORE_GATEWAY__METRICS_PORT": str(metrics_port)}
    with running_gateway(world, port=port, **settings) as made:
        world.edit_registry(revoked={"tier": "t30"})
        made.process.send_signal(signal.SIGHUP)
        revoked = key("revoked", KeyUse.WRITE)
        until(lambda: made.post("/v1/track", {}, key=revoked).status == 401, "the key to be revoked")
        yield made


def call(**fields: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Viewed", "userId": "u1", "messageId": str(uuid4())} | fields


def published(world: World) -> str:
    """Every record of the event topic, one a line."""
    return "\n".join(
        (each.value or b"").decode() for each in records_of(world.settings.kafka, world.settings.topics.events)
    )


def test_with_a_certificate_it_speaks_tls_and_nothing_else(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "127.0.0.1")
    settings: dict[str, Any] = {
        "EVENTSTORE_GATEWAY__TLS_CERTIFICATE": str(authority.server),
        "EVENTSTORE_GATEWAY__TLS_KEY": str(authority.key),
    }
    trusting = ssl.create_default_context(cafile=str(authority.certificate))
    with running_gateway(world, "--only", "collect", tls=trusting, **settings) as gateway:
        answer = gateway.post("/v1/track", call(), key=WRITE)
        assert (answer.status, answer.headers[STRICT_TRANSPORT[0]]) == (200, STRICT_TRANSPORT[1])
        gateway.tls = ssl.create_default_context()
        with pytest.raises(ssl.SSLError):
            gateway.post("/v1/track", call(), key=WRITE)
        gateway.tls = None
        with pytest.raises((http.client.HTTPException, OSError)):
            gateway.post("/v1/track", call(), key=WRITE)


@pytest.mark.parametrize(("path", "with_key", "status"), [
    ("/v1/tenants/shop/users/u/count", READ, 200), ("/v1/tenants/shop/users/u/count", None, 401), ("/nowhere", None, 404),
])  # fmt: skip
def test_every_answer_says_what_may_be_done_with_it(
    gateway: GatewayUnderTest, path: str, with_key: str | None, status: int
) -> None:
    answer = gateway.ask("GET", path, key=with_key)
    assert answer.status == status
    assert {name: answer.headers.get(name) for name, _ in SAFE} == dict(SAFE)


@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch", "/v1/t"])
@pytest.mark.parametrize(("inside", "status"), [
    ("garbage", 401), ("", 401), (None, 401), (READ, 403), (7, 400),
    (key("nobody", KeyUse.WRITE), 401), (key("revoked", KeyUse.WRITE), 401),
])  # fmt: skip
def test_a_key_in_the_body_is_judged_as_one_in_a_header(
    world: World, gateway: GatewayUnderTest, path: str, inside: Any, status: int
) -> None:
    uid = str(uuid4())
    body = {"batch": [call(userId=uid)]} if "batch" in path else call(userId=uid)
    assert gateway.post(path, body | {"writeKey": inside}).status == status
    assert uid not in published(world)
    assert not [letter for letter in world.dead_letters() if uid.encode() in (letter.value or b"")]


def test_a_key_in_the_body_opens_its_own_tenant_whatever_the_body_says(world: World, gateway: GatewayUnderTest) -> None:
    uid = str(uuid4())
    body = call(userId=uid, tenant="forum", writeKey=WRITE, context={"tenant": "forum"})
    assert gateway.post("/v1/track", body).status == 200
    (found,) = [json.loads(line) for line in published(world).splitlines() if uid in line]
    assert found["tenant"] == "shop"


def test_what_is_imported_is_accepted_as_a_batch_is(world: World, gateway: GatewayUnderTest) -> None:
    uid = str(uuid4())
    answer = gateway.post("/v1/import", {"batch": [call(userId=uid), call(userId=uid, type="nothing")]}, key=WRITE)
    assert (answer.status, answer.json["accepted"]) == (200, 1)
    assert [each["index"] for each in answer.json["rejected"]] == [1]
    assert published(world).count(uid) == 1


@pytest.mark.parametrize(
    "content_type", ["text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "image/png", "", None]
)
def test_json_is_json_whatever_it_is_called_and_nothing_else_is(
    gateway: GatewayUnderTest, content_type: str | None
) -> None:
    named = {} if content_type is None else {"content_type": content_type}
    assert gateway.post("/v1/track", call(), key=WRITE, **named).status == 200
    answer = gateway.ask("POST", "/v1/track", b"event=Viewed&userId=u1", key=WRITE, **named)
    assert (answer.status, [each["reason"] for each in answer.json["rejected"]]) == (400, ["malformed"])


ABUSE = {
    "200 headers": b"content-length: LENGTH\r\n" + b"".join(b"x-%d: 1\r\n" % n for n in range(200)),
    "a header of a megabyte": b"content-length: LENGTH\r\nx-long: " + b"x" * 2**20 + b"\r\n",
    "a byte that no header has": b"content-length: LENGTH\r\nx-odd: \x00\r\n",
    "a name with a blank": b"content-length: LENGTH\r\nx odd: 1\r\n",
    "two lengths": b"content-length: LENGTH\r\ncontent-length: 3\r\n",
    "an absurd length": b"content-length: 99999999999999999999999\r\n",
    "a negative length": b"content-length: -1\r\n",
    "an unknown coding of the transfer": b"transfer-encoding: quantum\r\n",
    "an unknown coding of the body": b"content-encoding: quantum\r\ncontent-length: LENGTH\r\n",
}


@pytest.mark.parametrize("headers", ABUSE.values(), ids=ABUSE.keys())
def test_headers_that_make_no_sense_are_refused_and_harm_nobody(
    world: World, gateway: GatewayUnderTest, headers: bytes
) -> None:
    """What follows them is a good event: were they let through, it would be answered with 200."""
    uid = str(uuid4())
    body = msgspec.json.encode(call(userId=uid))
    head = f"POST /v1/track HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {WRITE}\r\n".encode()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as connection:
        try:
            connection.sendall(head + headers.replace(b"LENGTH", b"%d" % len(body)) + b"\r\n" + body)
            told = connection.recv(2**16)
        except ConnectionError:
            told = b""
    assert told == b"" or told.startswith(b"HTTP/1.1 4"), told
    assert gateway.post("/v1/track", call(), key=WRITE).status == 200
    assert uid not in published(world)


@pytest.mark.parametrize("sent", [b"Basic \xe9\xe9\xe9\xe9", b"Bearer \xff\xfe", b"Basic " + b"A" * 300_000, b"\xff"])
def test_a_key_of_odd_bytes_is_nobodys(gateway: GatewayUnderTest, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as connection:
        connection.sendall(
            b"GET /v1/tenants/shop/users/u/count HTTP/1.1\r\nhost: x\r\nauthorization: " + sent + b"\r\n\r\n"
        )
        assert connection.recv(2**16).startswith(b"HTTP/1.1 401 ")


def test_a_length_beside_chunks_is_not_believed(world: World, gateway: GatewayUnderTest) -> None:
    """A proxy that believes the length would take what follows for another request."""
    uid = str(uuid4())
    smuggled = (
        b"POST /v1/track HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
        + WRITE.encode()
        + b"\r\ncontent-length: 2\r\n\r\n{}"
    )
    body = msgspec.json.encode(call(userId=uid))
    request = (
        b"POST /v1/track HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer " + WRITE.encode()
        + b"\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    )  # fmt: skip
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as connection:
        connection.sendall(request + smuggled)
        told = b""
        while part := connection.recv(2**16):
            told += part
    assert told.count(b"HTTP/1.1 ") <= 1
    assert published(world).count(uid) == (1 if b" 200 " in told else 0)


def test_logs_hold_neither_keys_nor_what_is_said_of_anybody(world: World, gateway: GatewayUnderTest) -> None:
    uid, told, searched = (f"{name}-{uuid4()}" for name in ("uid", "told", "searched"))
    stranger = key("stranger", KeyUse.WRITE)
    for each in (WRITE, READ, stranger):
        gateway.post("/v1/track", call(userId=uid, properties={"told": told}), key=each)
        gateway.ask("GET", f"/v1/tenants/shop/users/{uid}/events?event={searched}", key=each)
    gateway.post("/v1/batch", {"batch": [call(userId=uid, event="", properties={"told": told})], "writeKey": WRITE})
    gateway.ask("GET", f"/v1/tenants/shop/users/{uid}/live?last_event_id={searched}", key=READ)
    gateway.ask("POST", f"/v1/{uid}?{searched}", told.encode(), authorization=f"Basic {stranger}")
    log = world.log.read_text()
    assert "/v1/tenants/{tenant}/users/{uid}/events" in log  # it does tell of these requests
    for secret in (uid, told, searched, WRITE, READ, stranger):
        assert secret not in log


def test_it_tells_of_itself_on_a_port_of_its_own(gateway: GatewayUnderTest, ports: tuple[int, int]) -> None:
    def told(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[1]}{path}", timeout=60) as answer:
            assert answer.status == 200
            text: str = answer.read().decode()
            return text

    def events(outcome: str) -> float:
        name = f'eventstore_http_events_total{{outcome="{outcome}"}} '
        return next(
            (float(line.removeprefix(name)) for line in told("/metrics").splitlines() if line.startswith(name)), 0.0
        )

    before = events("accepted"), events("rejected")
    gateway.post("/v1/batch", {"batch": [call(), call(), call(type="nothing")]}, key=WRITE)
    assert (events("accepted") - before[0], events("rejected") - before[1]) == (2, 1)
    assert 'eventstore_http_requests_total{method="POST",route="/v1/batch",status="200"}' in told("/metrics")
    assert "producers" in told("/health/live")
    assert "running" in told("/health/ready")


def test_connections_must_leave_room_to_say_no(world: World) -> None:
    settings: dict[str, Any] = {"EVENTSTORE_GATEWAY__CONNECTIONS": "100", "EVENTSTORE_GATEWAY__OPEN_REQUESTS": "90"}
    with (
        pytest.raises(AssertionError, match="the gateway has ended"),
        running_gateway(world, "--only", "read", **settings),
    ):
        pass
    assert "gateway.connections: expected more than open_requests and live_feeds together" in world.log.read_text()


def test_beyond_its_feeds_it_says_no_and_answers_everything_else(world: World) -> None:
    settings: dict[str, Any] = {
        "EVENTSTORE_GATEWAY__LIVE_FEEDS": str(LIVE_FEEDS),
        "EVENTSTORE_GATEWAY__OPEN_REQUESTS": str(OPEN_REQUESTS),
    }
    with running_gateway(world, **settings) as gateway, ExitStack() as feeds:

        def status_of_one_more() -> int:
            return feeds.enter_context(FeedReader(gateway, "shop", "u1", READ)).status

        until(lambda: status_of_one_more() == 200, "the feeds to have heard of erasures")
        assert [status_of_one_more() for _ in range(LIVE_FEEDS)] == [200] * (LIVE_FEEDS - 1) + [503]
        refused = gateway.ask("GET", "/v1/tenants/shop/users/u1/live", key=READ)
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert gateway.post("/v1/track", call(), key=WRITE).status == 200
