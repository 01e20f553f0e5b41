"""From a request to its answer: the route, the door, the handler, and one way to fail."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache
from time import perf_counter
from typing import Any, Final

import structlog
from prometheus_client import Counter, Histogram

from eventstore import metrics
from eventstore.clock import now_micros
from eventstore.errors import EventstoreError
from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.cors import Cors
from eventstore.gateway.http import Header, HttpError, Request, Response, Streamed
from eventstore.gateway.routes import Route, Router

log = structlog.stdlib.get_logger(__name__)

SAFE: Final[tuple[Header, ...]] = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("x-frame-options", "DENY"),
)
"""On every answer: nothing of a user's past stays in a cache, or is shown inside another page."""
UNKNOWN: Final = "unknown"
SEND_SECONDS: Final = 30.0
"""A reader who takes nothing of a stream for so long is let go of."""
_TOO_MANY: Final = HttpError(503, "too many requests at a time: try again", (("retry-after", "1"),))


@dataclass(slots=True)
class Gateway:
    """The RSGI application."""

    router: Router
    doorkeeper: Doorkeeper
    cors: Cors
    body_seconds: float
    most_open: int
    """Requests worked on at a time; more are told to come back."""
    open: int = 0
    """Requests being worked on."""
    headers: tuple[Header, ...] = SAFE
    clock: Callable[[], int] = field(default=now_micros)
    """Microseconds since the epoch."""

    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def idle(self) -> None:
        """Returns when no request is being worked on."""
        while self.open:
            self._ended.clear()
            await self._ended.wait()

    async def __rsgi__(self, scope: Any, stream: Any) -> None:
        if scope.proto != "http":
            stream.close(404)
            return
        started = perf_counter()
        name = UNKNOWN
        answer: Response | Streamed
        lasting = False
        self.open += 1
        try:
            try:
                if self.open > self.most_open:
                    answer = _TOO_MANY.response()
                elif self.cors.asks(scope.method, scope.headers):
                    name, answer = "preflight", self.cors.preflight(scope.headers)
                else:
                    route, params = self.router.find(scope.method, scope.path)
                    name = route.path
                    answer = await route.handler(self._request(scope, stream, route, params))
            except HttpError as error:
                answer = error.response()
            except Exception as bug:  # noqa: BLE001 — one request's trouble must not end the others'
                answer = _failed(bug)
            if lasting := isinstance(answer, Streamed) and answer.lasting:
                self._release()
            status = await self._send(scope, stream, answer)
        finally:
            if not lasting:
                self._release()
        seconds = perf_counter() - started
        _requests(scope.method if name is not UNKNOWN else UNKNOWN, name, status).inc()
        _seconds(name).observe(seconds)
        # neither key nor query nor path: the path names users
        log.debug("request", method=scope.method, route=name, status=status, ms=round(seconds * 1_000, 2))

    def _release(self) -> None:
        self.open -= 1
        self._ended.set()

    def _request(self, scope: Any, stream: Any, route: Route, params: Mapping[str, str]) -> Request:
        return Request(
            method=scope.method,
            path=scope.path,
            query_string=scope.query_string,
            headers=scope.headers,
            stream=stream,
            body_seconds=self.body_seconds,
            received_micros=self.clock() // 1_000 * 1_000,  # whole milliseconds are cheapest to write and to read
            params=params,
            tenant=self.doorkeeper.admit(route, scope.headers, params),
        )

    async def _send(self, scope: Any, stream: Any, answer: Response | Streamed) -> int:
        headers = [*answer.headers, *self.headers, *self.cors.headers(scope.headers)]
        if isinstance(answer, Response):
            stream.response_bytes(answer.status, headers, answer.body)
            return answer.status
        transport = stream.response_stream(answer.status, headers)
        async with aclosing(answer.parts) as parts:  # type: ignore[type-var]  # every one is a generator
            async for part in parts:
                async with asyncio.timeout(SEND_SECONDS):
                    await transport.send_bytes(part)
        return answer.status


@cache  # finding a series costs more than counting in it; there are as many as methods, routes and statuses
def _requests(method: str, route: str, status: int) -> Counter:
    return metrics.HTTP_REQUESTS.labels(method, route, str(status))


@cache
def _seconds(route: str) -> Histogram:
    return metrics.HTTP_SECONDS.labels(route)


def _failed(bug: Exception) -> Response:
    log.error("request failed", error=repr(bug), exc_info=not isinstance(bug, EventstoreError))
    return HttpError(500, "unexpected: see the gateway's log").response()
