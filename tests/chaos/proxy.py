"""A TCP proxy that breaks connections in the ways networks do.

It runs on a thread and an event loop of its own, so that coroutines and plain code alike can use it: every method returns
when its effect is there.
"""

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

Address = tuple[str, int]

PIECE_BYTES = 65_536
PIECES_UNDER_WAY = 64
"""Taken from one side and not yet given to the other; then the sender's own buffers fill, as behind a slow network."""
STEP_SECONDS = 10.0
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a TCP reset."""


@dataclass(slots=True)
class Weather:
    """What befalls the bytes of all connections; seconds."""

    latency: float = 0.0
    jitter: float = 0.0
    """At most so much more for each piece; order is kept."""
    close_delay: float = 0.0
    """Until one side hears that the other has closed."""
    cut_after: int | None = None
    """A connection is reset when it has carried so many bytes of its target's answers."""


class Connection:
    """One client's connection and ours to the target, each way with a queue in between."""

    def __init__(self, proxy: "Proxy", client: asyncio.StreamWriter, target: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self.client = client
        self.target = target
        self.deaf = False
        """Half open: the target is gone, and the client is not told."""

    def reset(self) -> None:
        for writer in (self.client, self.target):
            _reset(writer)

    def half_open(self) -> None:
        self.deaf = True
        _reset(self.target)

    async def carry(self, from_client: asyncio.StreamReader, from_target: asyncio.StreamReader) -> None:
        """Until both ways have ended."""
        await asyncio.gather(self._way(from_client, self.target), self._way(from_target, self.client))

    async def _way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES_UNDER_WAY)
        await asyncio.gather(self._take(reader, pieces), self._give(pieces, writer))

    async def _take(self, reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]]) -> None:
        """An empty piece is the end."""
        loop, weather, piece, due = asyncio.get_running_loop(), self._proxy.weather, b"-", 0.0
        while piece:
            try:
                piece = await reader.read(PIECE_BYTES)
            except OSError:
                piece = b""
            wait = weather.latency + random.random() * weather.jitter if piece else weather.close_delay
            due = max(due, loop.time() + wait)
            await pieces.put((due, piece))

    async def _give(self, pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop, carried, piece = asyncio.get_running_loop(), 0, b"-"
        while piece:
            due, piece = await pieces.get()
            await asyncio.sleep(due - loop.time())
            await self._proxy.flowing.wait()
            if self.deaf:
                continue
            with suppress(OSError):
                carried += len(piece)
                if writer is self.client and self._is_cut(writer, piece, carried):
                    await self._drained(writer)
                    self.reset()
                elif piece:
                    writer.write(piece)
                    await writer.drain()
                else:
                    writer.close()

    def _is_cut(self, writer: asyncio.StreamWriter, piece: bytes, carried: int) -> bool:
        limit = self._proxy.weather.cut_after
        if limit is None or carried < limit:
            return False
        writer.write(piece[: max(0, len(piece) - (carried - limit))])
        return True

    @staticmethod
    async def _drained(writer: asyncio.StreamWriter) -> None:
        """A reset throws away what has not left yet: let the part before the cut arrive."""
        while writer.transport.get_write_buffer_size():  # noqa: ASYNC110 — a transport has no event for "empty"
            await asyncio.sleep(0)


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()


@dataclass(slots=True)
class Proxy:
    """Between clients of `address` and a server at `target`; made by `running_proxy`."""

    target: Address
    address: Address
    weather: Weather = field(default_factory=Weather)
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    connections: set[Connection] = field(default_factory=set)
    accepted: int = 0
    """Connections since the start."""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _server: asyncio.Server | None = None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    # ------------------------------------------------------------------------------------------------------- faults

    def slow(self, latency: float, jitter: float = 0.0) -> None:
        """Every piece arrives so many seconds later, each way."""
        self._set(latency=latency, jitter=jitter)

    def hold(self) -> None:
        """A black hole: connections stay, new ones are accepted, nothing passes until `heal`; then all that was sent."""
        self._call(self.flowing.clear)

    def reset(self) -> None:
        """Reset every present connection on both sides; new ones work."""
        self._each(Connection.reset)

    def half_open(self) -> None:
        """The target loses every present connection and the clients are not told; new ones work."""
        self._each(Connection.half_open)

    def close_slowly(self, delay: float) -> None:
        """Who is left hears of the other's end only so many seconds later."""
        self._set(close_delay=delay)

    def cut(self, after: int) -> None:
        """Reset each connection, present and new, once it has carried so many bytes of answers: mostly inside a frame."""
        self._set(cut_after=after)

    def disable(self) -> None:
        """Reset every connection and refuse new ones."""
        self._await(self._stop_listening)
        self.reset()

    def enable(self) -> None:
        """Listen again."""
        self._await(self._listen)

    def heal(self) -> None:
        """Fair weather, and all that was held goes on."""
        self._set(latency=0.0, jitter=0.0, close_delay=0.0, cut_after=None)
        self._call(self.flowing.set)
        self.enable()

    def _set(self, **changes: float | None) -> None:
        def change() -> None:
            for name, value in changes.items():
                setattr(self.weather, name, value)

        self._call(change)

    # ------------------------------------------------------------------------------------------------- on the thread

    def _each(self, step: Callable[[Connection], None]) -> None:
        def run() -> None:
            for connection in tuple(self.connections):
                step(connection)

        self._call(run)

    def _call(self, step: Callable[[], object]) -> None:
        async def run() -> None:
            step()

        self._await(run)

    def _await(self, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(step(), self._loop).result(STEP_SECONDS)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, *self.address)
            self.address = self._server.sockets[0].getsockname()[:2]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, client)
        except asyncio.CancelledError:  # the proxy ends; asyncio's server would log it
            pass
        finally:
            self._tasks.discard(task)
            client.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            from_target, target = await asyncio.open_connection(*self.target)
        except OSError:
            _reset(client)
            return
        connection = Connection(self, client, target)
        self.connections.add(connection)
        try:
            await connection.carry(reader, from_target)
        finally:
            self.connections.discard(connection)
            target.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _end(self) -> None:
        await self._stop_listening()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def running_proxy(target: Address, address: Address = ("127.0.0.1", 0)) -> Iterator[Proxy]:
    """A proxy that listens on `address` (port 0: any free one; `proxy.address` tells) until the end of the block."""
    proxy = Proxy(target, address)
    thread = Thread(target=proxy._run, name=f"proxy to {target}", daemon=True)
    thread.start()
    try:
        proxy.heal()
        yield proxy
    finally:
        proxy._await(proxy._end)
        proxy._loop.call_soon_threadsafe(proxy._loop.stop)
        thread.join(STEP_SECONDS)
        proxy._loop.close()
