"""The profile page: one user's timeline with the live feed on top. Its files are packaged with us and need nothing else."""

from importlib.resources import files
from typing import Final

from eventstore.gateway.http import HTML, Header, Request, Response
from eventstore.gateway.routes import Guard, Handler, Route

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, nothing inline, and no text that becomes HTML: whatever a producer publishes stays text."""
TYPES: Final = {
    "html": HTML[1],
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
PAGE: Final = "index.html"


def ui_routes() -> list[Route]:
    """`GET /ui` and what the page loads. They tell nothing about anybody: the page asks for a key."""
    found = sorted((files("eventstore.gateway") / "static").iterdir(), key=lambda file: file.name)
    return [
        Route("GET", "/ui" if file.name == PAGE else f"/ui/{file.name}", _serving(file.name, file.read_bytes()),
              Guard.OPEN, "The profile page", documented=False)
        for file in found
    ]  # fmt: skip


def _serving(name: str, content: bytes) -> Handler:
    headers: tuple[Header, ...] = (
        ("content-type", TYPES[name.rpartition(".")[2]]),
        ("content-security-policy", POLICY),
    )
    answer = Response(200, content, headers)

    async def serve(_request: Request) -> Response:
        return answer

    return serve
