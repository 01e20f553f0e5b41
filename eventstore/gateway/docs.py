"""The API's description as a page: made once, without scripts, pictures or anything from elsewhere, so it works offline."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from html import escape
from typing import Any, Final

import msgspec

from eventstore.gateway.http import HTML, Request, Response
from eventstore.gateway.routes import Guard, Route

STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: #0a7d5a; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 2rem 1rem 6rem; }
h1 { margin-bottom: 0 } code, pre, th { font-family: ui-monospace, monospace; font-size: .9em }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; padding: 0 .8rem }
summary { cursor: pointer; padding: .6rem 0 } summary code { font-weight: 600 }
.method { color: var(--accent); display: inline-block; min-width: 3.5em }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem }
th, td { border-top: 1px solid var(--line); padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top }
pre { background: var(--soft); border-radius: 6px; padding: .6rem; overflow-x: auto } h2 { margin-top: 2.5rem }
"""


def docs_route(document: Mapping[str, Any]) -> Route:
    """`GET /docs`: the page of an OpenAPI document."""
    digest = b64encode(sha256(STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    answer = Response(200, page(document).encode(), (HTML, ("content-security-policy", policy)))

    async def serve(_request: Request) -> Response:
        return answer

    return Route("GET", "/docs", serve, Guard.OPEN, "The API as a page", documented=False)


def page(document: Mapping[str, Any]) -> str:
    """The OpenAPI document as HTML."""
    info = document["info"]
    operations = [
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [
        f"<details><summary><code>{escape(name)}</code></summary>{_json(schema)}</details>"
        for name, schema in document["components"]["schemas"].items()
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1><p>{escape(info['description'])} "
        'For programs: <a href="/openapi.json">openapi.json</a>.</p>'
        "<p>Send a key as <code>Authorization: Bearer KEY</code>, or as the user name of Basic.</p>"
        f"<h2>Routes</h2>{''.join(operations)}<h2>Schemas</h2>{''.join(schemas)}</body></html>"
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    key = ", ".join(operation.get("tags", []))
    return (
        f'<details><summary><code><span class="method">{method.upper()}</span> {escape(path)}</code> '
        f"{escape(operation['summary'])}</summary>"
        f"<p>{escape(operation.get('description', ''))}</p><p>{f'With a {escape(key)} key.' if key else 'Open.'}</p>"
        f"{''.join(_parameters(operation.get('parameters', [])))}"
        f"{''.join(_body(operation.get('requestBody', {})))}"
        f"{''.join(_answers(operation['responses']))}</details>"
    )


def _parameters(parameters: list[Mapping[str, Any]]) -> Iterator[str]:
    if parameters:
        yield "<table><tr><th>parameter</th><th></th><th></th></tr>"
        for each in parameters:
            yield (
                f"<tr><td><code>{escape(each['name'])}</code></td><td>{escape(each['in'])}</td>"
                f"<td>{escape(each.get('description', ''))} <code>{escape(_text(each['schema']))}</code></td></tr>"
            )
        yield "</table>"


def _body(body: Mapping[str, Any]) -> Iterator[str]:
    for name, content in body.get("content", {}).items():
        yield f"<p>Body <code>{escape(name)}</code></p>{_json(content['schema'])}"


def _answers(responses: Mapping[str, Any]) -> Iterator[str]:
    yield "<table><tr><th>status</th><th></th><th></th></tr>"
    for status, response in sorted(responses.items()):
        kinds = ", ".join(f"{kind} {_text(content['schema'])}" for kind, content in response.get("content", {}).items())
        yield f"<tr><td>{escape(status)}</td><td>{escape(response['description'])}</td><td><code>{escape(kinds)}</code></td></tr>"
    yield "</table>"


def _json(value: Any) -> str:
    return f"<pre>{escape(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())}</pre>"


def _text(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name: str = schema["$ref"].rpartition("/")[2]
        return name
    return msgspec.json.encode(schema).decode()
