"""Which web pages of other origins may call us: what their browsers ask, and what they are told."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from eventstore.gateway.http import Header, Headers, Response

ANY: Final = "*"
_MAX_AGE_SECONDS: Final = 7_200
_HEADERS: Final = "authorization, content-type, content-encoding, last-event-id, x-retry-count"
"""The last one is set by Segment's library for browsers on each retry: not allowed, no retry would leave the browser."""


@dataclass(frozen=True, slots=True)
class Cors:
    """Origins such as `https://shop.example`; `*` for all; none for none."""

    origins: Collection[str] = ()

    def asks(self, method: str, headers: Headers) -> bool:
        """Whether this is a browser's question before a call (a preflight), not a call."""
        return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers

    def preflight(self, headers: Headers) -> Response:
        """The answer to such a question; without the headers that allow it, the browser does not call."""
        allowed: tuple[Header, ...] = ()
        if self._allows(headers.get("origin")):
            allowed = (
                ("access-control-allow-methods", "GET, POST"),
                ("access-control-allow-headers", _HEADERS),
                ("access-control-max-age", str(_MAX_AGE_SECONDS)),
            )
        return Response(204, b"", allowed)

    def headers(self, headers: Headers) -> tuple[Header, ...]:
        """What every answer to a page of this origin bears. Keys are sent by the page's code, never by cookies."""
        origin = headers.get("origin") if self.origins else None
        if origin is None or not self._allows(origin):
            return ()
        return (("access-control-allow-origin", ANY if ANY in self.origins else origin), ("vary", "origin"),
                ("access-control-expose-headers", "retry-after"))  # fmt: skip

    def _allows(self, origin: str | None) -> bool:
        return ANY in self.origins or origin in self.origins
