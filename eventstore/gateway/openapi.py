"""The API's description, made from the table of routes: what is not served is not described, and the other way round."""

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from eventstore.gateway.http import Request, Response, encode
from eventstore.gateway.routes import Guard, Route

VERSION: Final = "3.1.0"
READ_STATUS: Final = (400, 404, 405, 503, 504)
WRITE_STATUS: Final = (400, 404, 405, 408, 413, 415, 503)
GUARDED_STATUS: Final = (401, 403, 429)
"""What any route of the kind may answer beside its own answers."""
RETRIED: Final = frozenset({429, 503})
_REFERENCE: Final = "#/components/schemas/{name}"


class Problem(msgspec.Struct, frozen=True):
    """Why a request was not served."""

    error: str
    """A name for the status, for programs."""
    detail: str
    """What was expected, what came, and the mend."""


def parameter(name: str, kind: type, description: str, *, required: bool = False, **schema: Any) -> dict[str, Any]:
    """A field of the query, with further keywords of JSON Schema."""
    found = msgspec.json.schema(kind) | schema
    return {"name": name, "in": "query", "required": required, "description": description, "schema": found}


def answers(whole: type, *, lines: type | None = None) -> dict[str, Any]:
    """The answer 200; with `lines`, what each line of NDJSON is, where a client may ask for that."""
    content: dict[str, Any] = {"application/json": {"schema": whole}}
    if lines is not None:
        content["application/x-ndjson"] = {"schema": {"type": "string"}, "x-line": {"schema": lines}}
    return {"200": {"description": "OK", "content": content}}


def problem_or(receipt: type) -> dict[str, Any]:
    """Answers of a route that tells of bad events by a receipt: beside 200 also with 400, where nothing was accepted."""
    told = {
        "description": "Nothing was accepted.",
        "content": {"application/json": {"schema": {"anyOf": [receipt, Problem]}}},
    }
    return answers(receipt) | {"400": told}


def body(**content: Any) -> dict[str, Any]:
    """A request's body by content type, underscores for the slash: `application_json=Posted`. Types and schemas will do."""
    return {
        "required": True,
        "content": {
            name.replace("_", "/", 1).replace("_", "-"): {"schema": schema} for name, schema in content.items()
        },
    }


def description(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The OpenAPI document. Python types in the routes' operations become its components.

    Args:
        routes: the table that is served.
        version: of the software.
    """
    shown = [route for route in routes if route.documented]
    types = {kind: None for route in shown for kind in _types(route.operation or {})} | {Problem: None}
    _, components = msgspec.json.schema_components(tuple(types), ref_template=_REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": VERSION,
        "info": {
            "title": "Eventstore",
            "version": version,
            "description": "Short-term memory of every user's actions: events in, one user's timeline out.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "From `eventstore keys create`."},
                "basic": {"type": "http", "scheme": "basic", "description": "The key as the user name, no password."},
            },
        },
    }


def description_route(document: Mapping[str, Any]) -> Route:
    """`GET /openapi.json`."""
    answer = Response(200, encode(document))

    async def serve(_request: Request) -> Response:
        return answer

    return Route("GET", "/openapi.json", serve, Guard.OPEN, "The API's description", documented=False)


def _operation(route: Route) -> dict[str, Any]:
    given = _resolved(route.operation or {"responses": {"200": {"description": "OK"}}})
    found: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{route.path.replace('/', '_').translate(_NO_BRACES)}",
        "summary": route.summary,
        **given,
        "parameters": [*map(_in_path, route.names), *given.get("parameters", [])],
        "responses": {str(status): _problem(status) for status in _statuses(route)} | given["responses"],
    }
    if route.guard is not Guard.OPEN:
        found["security"] = [{"key": []}, {"basic": []}]
        found["tags"] = [route.guard.value.value]
    return found


def _statuses(route: Route) -> list[int]:
    if route.guard is Guard.OPEN:
        return [405, 503]
    return sorted({*GUARDED_STATUS, *(READ_STATUS if route.method == "GET" else WRITE_STATUS)})


def _problem(status: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {"application/json": {"schema": _reference(Problem)}},
    }
    if status in RETRIED:
        found["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return found


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _types(node: Any) -> Iterator[Any]:
    if isinstance(node, type):
        yield node
    elif isinstance(node, Mapping):
        for each in node.values():
            yield from _types(each)
    elif isinstance(node, list | tuple):
        for each in node:
            yield from _types(each)


def _resolved(node: Any) -> Any:
    if isinstance(node, type):
        return _reference(node)
    if isinstance(node, Mapping):
        return {name: _resolved(each) for name, each in node.items()}
    if isinstance(node, list | tuple):
        return [_resolved(each) for each in node]
    return node


def _reference(kind: type) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=kind.__name__)}


_NO_BRACES: Final = str.maketrans("", "", "{}")
