"""The whole API, walked by its own table of routes: who is let in, and whether it keeps to its description."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from time import monotonic
from typing import Any

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks
from schemathesis.core.result import Ok

from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.routes import Guard, Route
from eventstore.registry import RegistryFile
from eventstore.tenancy import KeyUse
from tests.gateways import GatewayUnderTest, key, running_gateway, with_keys
from tests.stacks import RunningStack
from tests.waiting import until
from tests.world import World, own_world
from workers.gateway import GatewayProcess, Part

pytestmark = pytest.mark.integration

CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
EXAMPLES = 12
"""Calls of each operation."""
OTHER_USE = {KeyUse.WRITE: KeyUse.READ, KeyUse.READ: KeyUse.WRITE}


@pytest.fixture(scope="module")
def world(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    tenants = {name: with_keys(name, tier="t30") for name in ("shop", "forum", "revoked")}
    with own_world(stack, tmp_path_factory.mktemp("api"), tenants) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[GatewayUnderTest]:
    with running_gateway(world, EVENTSTORE_READER__REQUEST_TIMEOUT="10", EVENTSTORE_GATEWAY__READ_TIMEOUT="20") as made:
        document = yaml.safe_load(world.registry.read_text("utf-8"))
        del document["tenants"]["revoked"]["keys"]
        world.registry.write_text(yaml.safe_dump(document), "utf-8")
        read = "/v1/tenants/revoked/users/u/count"
        until(lambda: made.ask("GET", read, key=key("revoked", KeyUse.READ)).status == 401, "the key to be revoked")
        yield made


@pytest.fixture(scope="module")
def routes(world: World) -> list[Route]:
    """The table as a gateway composes it."""

    async def compose() -> list[Route]:
        registry = RegistryFile(world.registry)
        async with AsyncExitStack() as opened:
            process = GatewayProcess(world.settings, list(Part))
            return await process._routes(Doorkeeper(lambda: registry.current, monotonic), opened)

    return asyncio.run(compose())


@pytest.fixture(scope="module")
def guarded(routes: list[Route]) -> list[Route]:
    return [route for route in routes if route.guard is not Guard.OPEN]


def path_of(route: Route, tenant: str = "shop") -> str:
    return route.path.format(**(dict.fromkeys(route.names, "x") | {"tenant": tenant, "uid": "u1"}))


def call(gateway: GatewayUnderTest, route: Route, key: str | None) -> int:
    return gateway.ask(route.method, path_of(route), None if route.method == "GET" else b"{}", key=key).status


def use_of(route: Route) -> KeyUse:
    return KeyUse(route.guard.value)


def test_no_key_garbage_or_a_revoked_one_opens_no_route(gateway: GatewayUnderTest, guarded: list[Route]) -> None:
    assert len(guarded) > 10
    for route in guarded:
        for wrong in (None, "", "garbage", "esr_", key("revoked", use_of(route)), key("nobody", use_of(route))):
            assert call(gateway, route, wrong) == 401, (route.path, wrong)


def test_a_key_of_the_other_use_opens_no_route(gateway: GatewayUnderTest, guarded: list[Route]) -> None:
    for route in guarded:
        assert call(gateway, route, key("shop", OTHER_USE[use_of(route)])) == 403, route.path


def test_another_tenants_key_opens_no_route_of_this_one(gateway: GatewayUnderTest, guarded: list[Route]) -> None:
    named = [route for route in guarded if "tenant" in route.names]
    assert named
    for route in named:
        assert call(gateway, route, key("forum", use_of(route))) == 403, route.path


def test_a_tenants_name_must_be_the_keys_to_the_letter(gateway: GatewayUnderTest) -> None:
    for name in ("Shop", "shop%20", "sh%6Fp%00", "shop%2F", "forum"):
        answer = gateway.ask("GET", f"/v1/tenants/{name}/users/u/count", key=key("shop", KeyUse.READ))
        assert answer.status in (403, 404), name


def test_methods_a_route_does_not_have_are_refused_by_name(gateway: GatewayUnderTest, routes: list[Route]) -> None:
    for route in routes:
        served = {each.method for each in routes if each.path == route.path}
        for method in {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "BREW"} - served:
            answer = gateway.ask(method, path_of(route), key=key("shop", KeyUse.READ))
            assert answer.status == 405, (method, route.path)
            assert served <= set(answer.headers["allow"].split(", "))


def test_what_is_open_tells_of_nobody_and_works_offline(gateway: GatewayUnderTest) -> None:
    description, page = gateway.ask("GET", "/openapi.json"), gateway.ask("GET", "/docs")
    assert (description.status, page.status) == (200, 200)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for told in (description.body, page.body):
        assert b"forum" not in told
        assert b"//" not in told.replace(b"https://shop.example", b"")  # no address of anybody else's


# a session of the driver that another test has left open draws from `random` on its own threads
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
def test_every_operation_keeps_to_its_description(gateway: GatewayUnderTest) -> None:
    api = schemathesis.openapi.from_url(f"{gateway.address}/openapi.json")
    for found in api.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if operation.path.endswith("/live"):
            continue  # its answer has no end

        @given(operation.as_strategy())
        @settings(max_examples=EXAMPLES, phases=[Phase.generate], derandomize=True, deadline=None, database=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        def keeps(case: schemathesis.Case[Any]) -> None:
            if "tenant" in case.path_parameters:
                case.path_parameters["tenant"] = "shop"  # or each call would end at the door
            use = KeyUse.READ if case.method == "GET" else KeyUse.WRITE
            case.call_and_validate(headers={"Authorization": f"Bearer {key('shop', use)}"}, checks=CHECKS)

        keeps()
