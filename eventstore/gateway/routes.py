"""Which request goes where, and who may send it."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from eventstore.gateway.http import HttpError, Request, Response, Streamed
from eventstore.tenancy import KeyUse

Handler = Callable[[Request], Awaitable[Response | Streamed]]


class Guard(Enum):
    """What a route asks of its sender."""

    WRITE = KeyUse.WRITE
    READ = KeyUse.READ
    OPEN = None
    """Nothing: it tells nothing about anybody."""


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    """`/v1/tenants/{tenant}/…`: a name in braces stands for one segment."""
    handler: Handler
    guard: Guard
    summary: str
    key_in_body: bool = False
    """Whether the body's `writeKey` will do: the handler checks it. Browsers cannot set headers without a preflight."""
    documented: bool = True
    """Short names of other systems stay out of the API's description."""
    operation: Mapping[str, Any] | None = None
    """Parameters, body and answers, as OpenAPI spells them."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))


class Router:
    """Finds routes. Paths without placeholders cost one look-up."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._plain = {(route.method, route.path): route for route in self.routes if not route.names}
        self._shaped = [(_pattern(route.path), route) for route in self.routes]

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]]:
        """The route, and what its placeholders stand for.

        Args:
            method: `GET`, `POST` …
            path: as the server gives it: percent-encoding is undone already.

        Raises:
            HttpError: no such path (404), or not with this method (405).
        """
        if (route := self._plain.get((method, path))) is not None:
            return route, {}
        allowed = set()
        for pattern, route in self._shaped:
            if (match := pattern.fullmatch(path)) is None:
                continue
            if route.method == method:
                return route, match.groupdict()
            allowed.add(route.method)
        if allowed:
            told = ", ".join(sorted(allowed))
            raise HttpError(405, f"expected {told}, got {method}", (("allow", told),))
        raise HttpError(404, "expected a path of the API; see /docs")


def _pattern(path: str) -> re.Pattern[str]:
    """A user's id may hold slashes: what follows it in a path is fixed, so it is still told apart."""
    return re.compile("/".join(map(_part, path.split("/"))), re.DOTALL)


def _part(part: str) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    return f"(?P<{part[1:-1]}>{'.+' if part == '{uid}' else '[^/]+'})"
