"""The gateway's application behind its real HTTP server, with handlers of the test's own."""

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from eventstore import metrics
from eventstore.config import GatewaySettings
from eventstore.gateway import service
from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.cors import Cors
from eventstore.gateway.http import NDJSON, BodyBytes, HttpError, Request, Response, Streamed, encode
from eventstore.gateway.routes import Guard, Route, Router
from eventstore.gateway.service import Gateway
from tests.builders import registry
from tests.gateways import free_port
from tests.waiting import eventually
from workers.gateway import server_of

pytestmark = pytest.mark.unit

PART = b"x" * 2**20
DEADLINE_SECONDS = 30.0


@dataclass
class Site:
    """A gateway that listens, and what its handlers have noted."""

    gateway: Gateway
    port: int
    noted: list[Any] = field(default_factory=list)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def ask(self, method: str, path: str, body: bytes = b"", *headers: str) -> tuple[int, bytes]:
        """Status and body of an answer with a length."""
        async with asyncio.timeout(DEADLINE_SECONDS), self.connection() as (reader, writer):
            writer.write(_head(method, path, f"content-length: {len(body)}", *headers) + body)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return int(head.split(maxsplit=2)[1]), await reader.readexactly(length)


def _head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: gateway", *headers, "", ""]).encode()


def run(
    scenario: Callable[[Site], Coroutine[Any, Any, None]], routes: Callable[[Site], list[Route]], **limits: Any
) -> None:
    async def main() -> None:
        known = registry()
        site = Site(
            Gateway(
                Router([]), Doorkeeper(lambda: known, lambda: 0.0), Cors(), limits.get("body_seconds", 10.0),
                limits.get("most_open", 8), BodyBytes(limits.get("body_bytes", 2**20)),
            ),
            free_port(),
        )  # fmt: skip
        site.gateway.router = Router(routes(site))
        server = server_of(GatewaySettings(port=site.port), site.gateway)
        serving = asyncio.create_task(server.serve())
        try:
            await _listening(site.port)
            await scenario(site)
        finally:
            server.stop()  # type: ignore[no-untyped-call]
            site.gateway.cut()
            await asyncio.wait((serving,), timeout=DEADLINE_SECONDS)

    asyncio.run(main())


async def _listening(port: int) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0)
            else:
                writer.close()
                return


def streamed(parts: Callable[[Site], AsyncGenerator[bytes, None]]) -> Callable[[Site], list[Route]]:
    def routes(site: Site) -> list[Route]:
        async def handle(_: Request) -> Streamed:
            return Streamed(parts(site), (NDJSON,))

        return [Route("GET", "/parts", handle, Guard.OPEN, "")]

    return routes


def posted(read: Callable[[Request], Coroutine[Any, Any, Any]]) -> Callable[[Site], list[Route]]:
    """What `read` gives is answered as JSON; whatever it raises is noted, too."""

    def routes(site: Site) -> list[Route]:
        async def handle(request: Request) -> Response:
            try:
                found = await read(request)
            except HttpError as error:
                site.noted.append(error)
                raise
            site.noted.append(found)
            return Response(200, encode(found))

        return [Route("POST", "/post", handle, Guard.OPEN, "")]

    return routes


async def lines_of(request: Request) -> list[str]:
    return [line.decode() async for lines in request.lines(1_000, 2) for line in lines]


async def length_of(request: Request) -> int:
    return len(await request.body(2**20))


@contextmanager
def broken_off() -> Iterator[Callable[[], float]]:
    """How many streamed answers have been broken off since."""
    series = metrics.HTTP_BROKEN.labels("/parts")
    before = series._value.get()
    yield lambda: series._value.get() - before


def test_a_streamed_answer_that_breaks_in_its_middle_cannot_pass_for_whole() -> None:
    async def parts(_: Site) -> AsyncGenerator[bytes, None]:
        yield b"1\n"
        raise HttpError(503, "the cluster is gone")

    async def scenario(site: Site) -> None:
        async with site.connection() as (reader, writer):
            writer.write(_head("GET", "/parts"))
            async with asyncio.timeout(DEADLINE_SECONDS):
                answer = await reader.read()  # the connection has ended
        assert b" 200 " in answer
        assert b"1\n" in answer
        assert not answer.endswith(b"0\r\n\r\n")  # what ends a whole one

    with broken_off() as count:
        run(scenario, streamed(parts))
        assert count() == 1


def test_a_streamed_answer_that_is_whole_says_so_and_the_connection_goes_on() -> None:
    async def parts(_: Site) -> AsyncGenerator[bytes, None]:
        yield b"1\n"
        yield b"2\n"

    async def scenario(site: Site) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS), site.connection() as (reader, writer):
            for _ in range(2):
                writer.write(_head("GET", "/parts"))
                assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"2\r\n1\n\r\n2\r\n2\n\r\n0\r\n\r\n")

    run(scenario, streamed(parts))


def test_who_takes_nothing_of_a_streamed_answer_makes_it_wait_and_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SEND_SECONDS", 0.2)

    async def parts(site: Site) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(1_000):
                site.noted.append(number)
                yield PART
        finally:
            site.noted.append("closed")

    async def scenario(site: Site) -> None:
        async with site.connection() as (_, writer):
            writer.write(_head("GET", "/parts"))
            await eventually(lambda: "closed" in site.noted, "the answer to be given up")
        assert site.noted[-2] < 100  # megabytes, in the server and the kernels of both sides

    with broken_off() as count:
        run(scenario, streamed(parts))
        assert count() == 1


def test_a_streamed_answer_ends_when_its_reader_has_gone() -> None:
    async def parts(site: Site) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"beat\n"
                await asyncio.sleep(0)
        finally:
            site.noted.append("closed")

    async def scenario(site: Site) -> None:
        async with site.connection() as (reader, writer):
            writer.write(_head("GET", "/parts"))
            await reader.readuntil(b"beat\n")
        await eventually(lambda: site.noted == ["closed"], "the answer to end")

    run(scenario, streamed(parts))


def test_half_an_upload_is_no_event() -> None:
    async def scenario(site: Site) -> None:
        for head in ("content-length: 100", "transfer-encoding: chunked"):
            site.noted.clear()
            async with site.connection() as (_, writer):
                body = b"one\ntwo\nthree\nfou" if head.startswith("content") else b"11\r\none\ntwo\nthree\nfou\r\n"
                writer.write(_head("POST", "/post", head) + body)
                await writer.drain()
            await eventually(lambda: bool(site.noted), "the handler")
            (error,) = site.noted
            assert isinstance(error, HttpError)
            assert "connection ended" in error.detail

    run(scenario, posted(lines_of))


def test_gzip_of_several_members_is_read_to_its_end() -> None:
    async def scenario(site: Site) -> None:
        members = gzip.compress(b"one\ntwo\nthr") + gzip.compress(b"ee\nfour\n")
        status, body = await site.ask("POST", "/post", members, "content-encoding: gzip")
        assert (status, json.loads(body)) == (200, ["one", "two", "three", "four"])
        status, _ = await site.ask("POST", "/post", members[:-4], "content-encoding: gzip")
        assert status == 400
        status, _ = await site.ask("POST", "/post", members + b"more", "content-encoding: gzip")
        assert status == 400

    run(scenario, posted(lines_of))


@pytest.mark.parametrize("read", [lines_of, length_of])
def test_an_empty_body_is_no_gzip(read: Callable[[Request], Coroutine[Any, Any, Any]]) -> None:
    async def scenario(site: Site) -> None:
        assert (await site.ask("POST", "/post", b"", "content-encoding: gzip"))[0] == 400

    run(scenario, posted(read))


def test_a_body_of_several_members_is_whole_and_bounded_as_a_whole() -> None:
    async def scenario(site: Site) -> None:
        half = gzip.compress(b" " * 2**19)
        assert await site.ask("POST", "/post", half + half, "content-encoding: gzip") == (200, b"%d" % 2**20)
        assert (await site.ask("POST", "/post", half * 2 + gzip.compress(b" "), "content-encoding: gzip"))[0] == 413

    run(scenario, posted(length_of), body_bytes=2**22)


def test_a_stream_of_empty_lines_has_an_end() -> None:
    async def scenario(site: Site) -> None:
        bomb = gzip.compress(b"\n" * 2**26)  # 64 KiB of it
        status, body = await site.ask("POST", "/post", bomb, "content-encoding: gzip")
        assert status == 400
        assert b"empty lines" in body
        some = gzip.compress(b"\n" * 1_000 + b"one\n")
        assert await site.ask("POST", "/post", some, "content-encoding: gzip") == (200, b'["one"]')

    run(scenario, posted(lines_of))


def test_all_bodies_together_are_bounded_and_what_was_held_is_free_again() -> None:
    async def scenario(site: Site) -> None:
        body = b"x" * 600_000
        async with site.connection() as (_, writer):
            writer.write(_head("POST", "/post", "content-length: 600001") + body)
            held = site.gateway.bodies
            await eventually(lambda: held.held >= len(body), "the body")
            status, told = await site.ask("POST", "/post", body)
            assert (status, b"try again" in told) == (503, True)
        await eventually(
            lambda: any(isinstance(each, HttpError) and each.status == 400 for each in site.noted), "the cut upload"
        )
        assert (await site.ask("POST", "/post", body))[0] == 200

    run(scenario, posted(length_of))


def test_requests_beyond_the_bound_are_told_to_come_back() -> None:
    async def scenario(site: Site) -> None:
        async with site.connection() as (_, writer):
            writer.write(_head("POST", "/post", "content-length: 1"))
            await eventually(lambda: site.gateway.open == 1, "the first request")
            assert (await site.ask("POST", "/post", b"x"))[0] == 503
            writer.write(b"x")
            await eventually(lambda: site.noted == [1], "the first answer")
        assert (await site.ask("POST", "/post", b"x"))[0] == 200

    run(scenario, posted(length_of), most_open=1)


def test_a_path_that_is_not_utf8_is_nobodys() -> None:
    def routes(_: Site) -> list[Route]:
        async def handle(request: Request) -> Response:
            return Response(200, encode(request.params["uid"]))

        return [Route("GET", "/users/{uid}", handle, Guard.OPEN, "")]

    async def scenario(site: Site) -> None:
        assert (await site.ask("GET", "/users/%FF"))[0] == 400
        assert await site.ask("GET", "/users/%EF%BF%BD") == (200, '"\ufffd"'.encode())
        assert await site.ask("GET", "/users/a%2Fb") == (200, b'"a/b"')

    run(scenario, routes)
