"""From a request to its answer: the route, the door, the handler, and one way to fail."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache, lru_cache
from time import perf_counter
from typing import Any, Final
from urllib.parse import unquote

import structlog
from prometheus_client import Counter, Histogram

from eventstore import metrics
from eventstore.clock import now_micros
from eventstore.errors import EventstoreError
from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.cors import Cors
from eventstore.gateway.http import (
    BodyBytes,
    Header,
    Headers,
    HttpError,
    Message,
    Receive,
    Request,
    Response,
    Streamed,
)
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


Send = Callable[[Message], Awaitable[None]]


class _ReaderLeftError(Exception):
    """Whoever asked takes no more of the answer."""


@dataclass(slots=True)
class Gateway:
    """The ASGI application."""

    router: Router
    doorkeeper: Doorkeeper
    cors: Cors
    body_seconds: float
    most_open: int
    """Requests worked on at a time; more are told to come back."""
    bodies: BodyBytes
    open: int = 0
    """Requests being worked on."""
    headers: tuple[Header, ...] = SAFE
    clock: Callable[[], int] = field(default=now_micros)
    """Microseconds since the epoch."""

    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    _sending: "set[asyncio.Task[Any] | None]" = field(default_factory=set)
    """Tasks of streamed answers."""

    async def idle(self) -> None:
        """Returns when no request is being worked on."""
        while self.open:
            self._ended.clear()
            await self._ended.wait()

    def cut(self) -> None:
        """End the answers that are still being streamed."""
        for task in self._sending:
            if task is not None:
                task.cancel()

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"  # noqa: S101 — the server is told to speak nothing else
        started = perf_counter()
        method, headers = scope["method"], Headers(scope["headers"])
        name = UNKNOWN
        request = None
        answer: Response | Streamed
        lasting = False
        self.open += 1
        try:
            try:
                if self.open > self.most_open:
                    answer = _TOO_MANY.response()
                elif self.cors.asks(method, headers):
                    name, answer = "preflight", self.cors.preflight(headers)
                else:
                    route, params = self.router.find(method, _path(scope))
                    name = route.path
                    request = self._request(scope, headers, receive, route, params)
                    answer = await route.handler(request)
            except HttpError as error:
                answer = error.response()
            except Exception as bug:  # noqa: BLE001 — one request's trouble must not end the others'
                answer = _failed(bug)
            if lasting := isinstance(answer, Streamed) and answer.lasting:
                self._release()
            extra = self.cors.headers(headers)
            if isinstance(answer, Response):
                await send(_head(answer, (*self.headers, *extra)))
                await send({"type": "http.response.body", "body": answer.body})
            else:
                await self._stream(answer, (*self.headers, *extra), receive, send, name)
        finally:
            if request is not None:
                self.bodies.release(request.held)
            if not lasting:
                self._release()
        seconds = perf_counter() - started
        _requests(method if name is not UNKNOWN else UNKNOWN, name, answer.status).inc()
        _seconds(name).observe(seconds)
        # neither key nor query nor path: the path names users
        log.debug("request", method=method, route=name, status=answer.status, ms=round(seconds * 1_000, 2))

    def _release(self) -> None:
        self.open -= 1
        self._ended.set()

    def _request(
        self, scope: Mapping[str, Any], headers: Headers, receive: Receive, route: Route, params: Mapping[str, str]
    ) -> Request:
        return Request(
            method=scope["method"],
            path=scope["path"],
            query_string=scope["query_string"].decode("latin-1"),
            headers=headers,
            receive=receive,
            body_seconds=self.body_seconds,
            received_micros=self.clock() // 1_000 * 1_000,  # whole milliseconds are cheapest to write and to read
            params=params,
            tenant=self.doorkeeper.admit(route, headers, params),
            bodies=self.bodies,
        )

    async def _stream(
        self, answer: Streamed, headers: tuple[Header, ...], receive: Receive, send: Send, route: str
    ) -> None:
        """Send an answer's parts. Whatever ends it before its end is raised: the server then breaks the connection off, and
        nobody takes half an answer for a whole one.
        """
        task = asyncio.current_task()
        self._sending.add(task)
        leaving = asyncio.create_task(_left(receive))
        try:
            async with aclosing(answer.parts) as parts:  # type: ignore[type-var]  # every one is a generator
                await send(_head(answer, headers))
                async for part in parts:
                    async with asyncio.timeout(SEND_SECONDS):
                        await send({"type": "http.response.body", "body": part, "more_body": True})
                    if leaving.done():
                        raise _ReaderLeftError  # noqa: TRY301 — as everything that ends it
            await send({"type": "http.response.body", "body": b""})
        except BaseException as error:
            why = (
                type(error).__name__
                if isinstance(error, TimeoutError | _ReaderLeftError | asyncio.CancelledError)
                else repr(error)
            )
            metrics.HTTP_BROKEN.labels(route).inc()
            log.info("answer broken off", route=route, reason=why)
            raise
        finally:
            leaving.cancel()
            self._sending.discard(task)


async def _left(receive: Receive) -> None:
    """Returns when whoever asked has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _path(scope: Mapping[str, Any]) -> str:
    """The path, decoded.

    Raises:
        HttpError: 400, it is not UTF-8: another user's name could come of it.
    """
    path: str = scope["path"]
    if "\ufffd" in path:
        try:
            return unquote(scope["raw_path"].decode("ascii"), errors="strict")
        except UnicodeDecodeError:
            raise HttpError(400, "path: expected percent-encoded UTF-8") from None
    return path


def _head(answer: Response | Streamed, headers: tuple[Header, ...]) -> Message:
    pairs = [*_encoded(answer.headers), *_encoded(headers)]
    return {"type": "http.response.start", "status": answer.status, "headers": pairs}


@lru_cache(256)
def _encoded(headers: tuple[Header, ...]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers]


@cache  # finding a series costs more than counting in it; there are as many as methods, routes and statuses
def _requests(method: str, route: str, status: int) -> Counter:
    return metrics.HTTP_REQUESTS.labels(method, route, str(status))


@cache
def _seconds(route: str) -> Histogram:
    return metrics.HTTP_SECONDS.labels(route)


def _failed(bug: Exception) -> Response:
    log.error("request failed", error=repr(bug), exc_info=not isinstance(bug, EventstoreError))
    return HttpError(500, "unexpected: see the gateway's log").response()
