"""One connection to one node, or to one shard of it: sends requests and matches their answers; the ground of every lane."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol, cast

from cassandra.connection import ProtocolError
from cassandra.protocol_features import ProtocolFeatures

from eventstore.errors import StoreError, TransientStoreError
from eventstore.events.cells import TableName
from eventstore.store.lane import frames
from eventstore.store.lane.frames import Answer, Opcode

TABLET: Final = "tablets-routing-v1"
"""Of a custom payload: the tablet that a request should have gone to."""


@dataclass(frozen=True, slots=True)
class Limits:
    timeout: float
    """Seconds that a batch may wait to be sent, and again for its answer; or a page of a read for its answer."""
    in_flight: int = 0
    """Batches on their way over one lane. How many reads there are is for whoever asks to bound."""


class Keeper(Protocol):
    """Who is told what happens on a line."""

    def lost(self, line: "Line", error: StoreError) -> None: ...

    def unprepared(self, line: "Line") -> None:
        """The node has forgotten the statements: prepare them again."""

    def learn(self, table: TableName, tablet: bytes) -> None:
        """A misrouted request for this table should have gone to this tablet."""

    def crashed(self, bug: Exception) -> None:
        """Our own fault, not the node's: nothing may go on as if it had not been."""


class Line(asyncio.Protocol, ABC):
    """A connection on which each request has a stream of its own and its answer a future.

    What it carries beyond that is for its kinds to say: batches (`Lane`) or reads (`ReadLane`).
    """

    statements: ClassVar[Sequence[str]]
    """Files of `schemas/cql`: what is prepared on each line of the kind."""

    def __init__(self, cluster: str, node: str, limits: Limits, keeper: Keeper) -> None:
        self.cluster = cluster
        self.node = node
        self.features = ProtocolFeatures()
        self._loop = asyncio.get_running_loop()
        self.born = self._loop.time()
        self._timeout = limits.timeout
        self._keeper = keeper
        self._transport: asyncio.Transport | None = None
        self._end: StoreError = self._transient(f"not connected to {node} yet")
        """Why there is no transport."""
        self._free: list[int] = []
        self._requests: dict[int, asyncio.Future[Answer]] = {}
        """By stream."""
        self._abandoned: set[int] = set()
        """Streams whose deadline has passed: not to be used again before their late answer has come."""
        self._heard_at = 0.0

    @property
    @abstractmethod
    def load(self) -> int:
        """What is on its way or waits to be sent."""

    def check_open(self) -> None:
        """Raises StoreError: why there is no connection any more."""
        if self._transport is None:
            raise _own(self._end)

    @abstractmethod
    def ready_with(self, ids: Mapping[str, bytes]) -> None:
        """The statements are prepared; their ids by name."""

    @abstractmethod
    def expire(self, now: float) -> None:
        """Give up what was sent too long ago; a node that says nothing is given up whole."""

    @abstractmethod
    def crash(self, bug: Exception) -> None:
        """End every call that waits for something here with a fault of ours."""

    @abstractmethod
    def _heard(self, data: bytes) -> None:
        """Take what the node has sent.

        Raises:
            cassandra.connection.ProtocolError: it is no answer.
        """

    async def ask(self, opcode: Opcode, body: bytes) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            cassandra.protocol.ErrorMessage: the node answered with an error; or the driver's exception for it.
            StoreError: the connection was lost first.
        """
        answer = await self._request(opcode, body)
        if answer.opcode == Opcode.ERROR:
            raise frames.error(answer, self.features).to_exception()
        return answer

    def _request(self, opcode: Opcode, body: bytes) -> asyncio.Future[Answer]:
        if self._transport is None:
            raise _own(self._end)
        stream = self._free.pop()
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._requests[stream] = answer
        self._transport.write(frames.frame(stream, opcode, body))
        return answer

    # ----------------------------------------------------------------------------------------------------- receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        try:
            self._heard(data)
        except ProtocolError as garbled:
            self.close(TransientStoreError(f"cluster {self.cluster}: {self.node}: {garbled}"))
        except Exception as bug:  # noqa: BLE001 — an event loop would only log it
            self._crash(bug)

    def _answered(self, answer: Answer) -> None:
        """The answer to a request, or one that comes after its deadline; servers' events have no stream."""
        if (request := self._requests.pop(answer.stream, None)) is not None:
            self._free.append(answer.stream)
            if not request.done():
                request.set_result(answer)
        else:
            self._late(answer.stream)

    def _late(self, stream: int) -> None:
        """An answer after its deadline: its stream can be used again."""
        if stream in self._abandoned:
            self._abandoned.discard(stream)
            self._free.append(stream)

    # ---------------------------------------------------------------------------------------------------------- loss

    def close(self, error: StoreError) -> None:
        """End the connection; what is on its way fails with `error`."""
        if self._transport is not None:
            self._transport.abort()
        self._lost(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self._transient(f"lost the connection to {self.node}" + (f": {exc}" if exc else "")))

    def _transient(self, why: str) -> TransientStoreError:
        return TransientStoreError(f"cluster {self.cluster}: {why}")

    def _lost(self, error: StoreError) -> None:
        if self._transport is None:
            return
        self._transport, self._end = None, error
        for request in self._requests.values():
            if not request.done():
                request.set_exception(_own(error))
        self._requests.clear()
        self._orphan(error)
        self._keeper.lost(self, error)

    @abstractmethod
    def _orphan(self, error: StoreError) -> None:
        """The connection is lost: fail what is left beside requests."""

    def _crash(self, bug: Exception) -> None:
        self.crash(bug)
        self._keeper.crashed(bug)
        self.close(self._transient(f"closed by an unexpected {type(bug).__name__}"))


def _own(error: StoreError) -> StoreError:
    """The same for one caller more: a traceback grows with every raise of its error."""
    return type(error)(*error.args)
