"""Requests to a gateway over kept connections: at a steady rate, or as fast as it answers."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Self

from workers.process import settle_garbage

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Make = Callable[[int], bytes]
"""The n-th request, whole."""


class Client:
    """Connections to one gateway, as many as there are requests open."""

    def __init__(self, port: int, *allowed: int) -> None:
        """`allowed` are the statuses that answers may have; only 200, unless some are named."""
        self._port = port
        self._allowed = allowed or (200,)
        self.statuses: Counter[int] = Counter()
        """How many answers had each status."""
        self._idle: deque[Connection] = deque()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for _, writer in self._idle:
            writer.close()

    async def ask(self, request: bytes) -> bytes:
        """The body of an answer, which must be one of those allowed."""
        reader, writer = await self._connection()
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head.split(maxsplit=2)[1])
        assert status in self._allowed, head
        self.statuses[status] += 1
        body = await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        self._idle.append((reader, writer))
        return body

    async def _connection(self) -> Connection:
        """The one used last, if the gateway has not closed it since: it does so when nothing has come for a while."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def paced(self, make: Make, rate: float, seconds: float) -> list[float]:
        """Seconds of each request, from when it was due until its answer was there; none waits for another."""
        settle_garbage()  # else what the benchmark itself holds is looked through in the midst of it, for 100 ms and more
        start = time.perf_counter()

        async def ask(number: int, due: float) -> float:
            await self.ask(make(number))
            return time.perf_counter() - due

        asking = []
        for number in range(int(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asking.append(asyncio.create_task(ask(number, due)))
        return await asyncio.gather(*asking)

    async def pressed(self, make: Make, at_once: int, seconds: float) -> int:
        """How many requests were answered, with so many always open."""
        end = time.perf_counter() + seconds

        async def press(first: int) -> int:
            answered = 0
            while time.perf_counter() < end:
                await self.ask(make(first + answered))
                answered += 1
            return answered

        return sum(await asyncio.gather(*(press(number) for number in range(at_once))))


def get(path: str, key: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n\r\n".encode()


def post(path: str, key: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
