"""Which route a request finds, and how a wrong one is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.gateway.http import HttpError, Request, Response
from eventstore.gateway.routes import Guard, Route, Router

pytestmark = pytest.mark.unit


async def handler(_request: Request) -> Response:
    return Response(200)


def route(method: str, path: str) -> Route:
    return Route(method, path, handler, Guard.OPEN, "")


EVENTS, COUNT = (
    route("GET", "/v1/tenants/{tenant}/users/{uid}/events"),
    route("GET", "/v1/tenants/{tenant}/users/{uid}/count"),
)
POSTED, LISTED = route("POST", "/v1/events"), route("GET", "/v1/events")
ROUTER = Router([EVENTS, COUNT, POSTED, LISTED])


def test_placeholders_are_told() -> None:
    assert ROUTER.find("GET", "/v1/tenants/shop/users/u1/count") == (COUNT, {"tenant": "shop", "uid": "u1"})


@given(st.text(min_size=1, max_size=80))
def test_any_user_is_found_whatever_his_name_holds(uid: str) -> None:
    found, params = ROUTER.find("GET", f"/v1/tenants/shop/users/{uid}/events")
    assert (found, params["uid"]) == (EVENTS, uid)


def test_a_user_named_like_a_route_is_a_user() -> None:
    assert ROUTER.find("GET", "/v1/tenants/shop/users/a/events/count")[1] == {"tenant": "shop", "uid": "a/events"}


def test_a_tenants_name_holds_no_slash() -> None:
    with pytest.raises(HttpError) as refused:
        ROUTER.find("GET", "/v1/tenants/a/b/users/u/events")
    assert refused.value.status == 404


@pytest.mark.parametrize(
    "path", ["/", "", "/v1", "/v1/events/", "/V1/events", "/v1/tenants/shop/users//events", "//v1/events"]
)
def test_a_path_that_nobody_serves_is_not_found(path: str) -> None:
    with pytest.raises(HttpError) as refused:
        ROUTER.find("GET", path)
    assert refused.value.status == 404


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "get", ""])
def test_a_method_that_a_path_does_not_have_is_told_which_it_has(method: str) -> None:
    with pytest.raises(HttpError, match="expected GET, POST") as refused:
        ROUTER.find(method, "/v1/events")
    assert (refused.value.status, refused.value.headers) == (405, (("allow", "GET, POST"),))
