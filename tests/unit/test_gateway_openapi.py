"""The API's description: made from the routes, complete, and shown as a page that needs nothing else."""

from typing import Any

import msgspec
import pytest

from eventstore.gateway.docs import page
from eventstore.gateway.http import Request, Response
from eventstore.gateway.openapi import Problem, answers, description, parameter
from eventstore.gateway.routes import Guard, Route

pytestmark = pytest.mark.unit


class Found(msgspec.Struct):
    """What is found."""

    count: int


async def handler(_request: Request) -> Response:
    return Response(200)


READ = Route(
    "GET", "/v1/tenants/{tenant}/found", handler, Guard.READ, "Find <things>",
    operation={"parameters": [parameter("last", str, "How far back.", pattern="^x$")], "responses": answers(Found)},
)  # fmt: skip
WRITE = Route("POST", "/v1/found", handler, Guard.WRITE, "Put things")
OPEN = Route("GET", "/open", handler, Guard.OPEN, "Open")
SHORT = Route("POST", "/v1/f", handler, Guard.WRITE, "Short", documented=False)


def described(*routes: Route) -> dict[str, Any]:
    """As a client reads it."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(description(routes, "1.2")))
    return decoded


def test_every_documented_route_is_described_and_no_other() -> None:
    paths = described(READ, WRITE, OPEN, SHORT)["paths"]
    assert {(path, method) for path, methods in paths.items() for method in methods} == {
        ("/v1/tenants/{tenant}/found", "get"), ("/v1/found", "post"), ("/open", "get"),
    }  # fmt: skip


def test_types_become_components() -> None:
    document = described(READ)
    operation = document["paths"][READ.path]["get"]
    assert operation["responses"]["200"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Found"
    }
    assert document["components"]["schemas"]["Found"]["properties"] == {"count": {"type": "integer"}}
    assert Problem.__name__ in document["components"]["schemas"]


def test_parameters_of_path_and_query_are_named() -> None:
    parameters = described(READ)["paths"][READ.path]["get"]["parameters"]
    assert [(each["name"], each["in"], each["required"]) for each in parameters] == [
        ("tenant", "path", True), ("last", "query", False),
    ]  # fmt: skip


def test_what_the_door_answers_is_said_for_guarded_routes_only() -> None:
    paths = described(READ, WRITE, OPEN)["paths"]
    for guarded in (paths[READ.path]["get"], paths[WRITE.path]["post"]):
        assert {"401", "403", "429"} <= guarded["responses"].keys()
        assert guarded["security"]
    assert "504" in paths[READ.path]["get"]["responses"]
    assert "413" in paths[WRITE.path]["post"]["responses"]
    assert "401" not in paths[OPEN.path]["get"]["responses"]
    assert "security" not in paths[OPEN.path]["get"]


def test_an_operations_own_answer_stands_before_the_general_one() -> None:
    own = Route("GET", "/own", handler, Guard.READ, "Own", operation={
        "responses": answers(Found) | {"400": {"description": "Mine"}},
    })  # fmt: skip
    assert described(own)["paths"]["/own"]["get"]["responses"]["400"] == {"description": "Mine"}


def test_the_page_shows_every_route_escaped_and_loads_nothing() -> None:
    html = page(described(READ, WRITE))
    for told in ("/v1/found", "Find &lt;things&gt;", "How far back.", "Found"):
        assert told in html
    assert "<things>" not in html
    for loading in ("<script", "src=", "//", "@import", "url("):
        assert loading not in html
