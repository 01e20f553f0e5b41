"""One connection to one node, or to one shard of it: sends batches, matches answers, keeps the window and the deadlines."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from cassandra.protocol_features import ProtocolFeatures

from eventstore import metrics
from eventstore.errors import StoreError, TransientStoreError
from eventstore.events.row import Batch
from eventstore.store.failures import store_error
from eventstore.store.lane import frames
from eventstore.store.lane.frames import HEADER, VERSION, Answer, Opcode, Prepared
from eventstore.store.writer import Failure

MAX_STREAMS: Final = 2_048
FIRST_WINDOW: Final = 64.0
LEAST_WINDOW: Final = 4.0


@dataclass(slots=True)
class Ticket:
    """One call of `write`: how many of its batches are still on their way."""

    left: int
    done: asyncio.Future[None]
    failures: list[Failure] = field(default_factory=list)

    def settle(self) -> None:
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def fail(self, batch: Batch, error: StoreError) -> None:
        self.failures.append(Failure(batch, error))
        self.settle()


Sent = tuple[Ticket, Batch, float]
"""What an answer is for, and when it was sent (event loop's clock)."""


class Lane(asyncio.Protocol):
    """A connection that has shaken hands and prepared its statements is `ready`; batches sent then go out in order.

    The window is how many batches may be on their way. It grows by one each round trip and halves when the node says that
    it is overloaded (additive increase, multiplicative decrease), so that it settles where the node's queue is short.
    Batches beyond it wait here, bounded by what the workers may have in flight.
    """

    def __init__(self, cluster: str, node: str, most_in_flight: int, on_lost: Callable[["Lane"], None]) -> None:
        self.cluster = cluster
        self.node = node
        self.features = ProtocolFeatures()
        self.prepared: Prepared | None = None
        self.on_payload: Callable[[bytes], None] = lambda _: None
        """Hears the tablet that a misrouted batch should have gone to."""
        self.re_prepare: Callable[[], None] = lambda: None
        self.window = min(FIRST_WINDOW, float(most_in_flight))
        self._most = float(min(most_in_flight, MAX_STREAMS // 2))
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._free = list(range(MAX_STREAMS - 1, -1, -1))
        self._sent: dict[int, Sent] = {}
        """By stream, the oldest first: a dict keeps the order of insertion, so deadlines need no timer of their own."""
        self._abandoned: set[int] = set()
        """Streams whose deadline has passed: not to be used again before their late answer has come."""
        self._requests: dict[int, asyncio.Future[Answer]] = {}
        self._queue: deque[tuple[Ticket, Batch]] = deque()
        self._heard_at = 0.0
        self._writable = True

    @property
    def load(self) -> int:
        """Batches on their way or waiting for the window."""
        return len(self._sent) + len(self._queue)

    @property
    def ready(self) -> bool:
        return self.prepared is not None and self._transport is not None

    # ------------------------------------------------------------------------------------------------------- sending

    def send(self, ticket: Ticket, batch: Batch) -> None:
        """Queue a batch; `flush` puts it on the wire."""
        self._queue.append((ticket, batch))

    def flush(self) -> None:
        """Write what the window allows, in one system call."""
        room = min(int(self.window) - len(self._sent), len(self._queue), len(self._free))
        if room <= 0 or not self._writable or self._transport is None or self.prepared is None:
            return
        now = self._loop.time()
        if not self._sent:
            self._heard_at = now  # silence counts from here
        parts: list[bytes] = []
        for _ in range(room):
            ticket, batch = self._queue.popleft()
            stream = self._free.pop()
            opcode, body = frames.write(self.prepared, batch)
            self._sent[stream] = (ticket, batch, now)
            parts += (HEADER.pack(VERSION, 0, stream, opcode, len(body)), body)
        self._transport.write(b"".join(parts))

    async def ask(self, opcode: Opcode, body: bytes) -> Answer:
        """Send a control request and wait for its answer.

        Raises:
            cassandra.protocol.ErrorMessage: the node answered with an error.
            ConnectionError: the connection was lost first.
        """
        if self._transport is None:
            raise ConnectionResetError("connection lost")
        stream = self._free.pop()
        answer = self._loop.create_future()
        self._requests[stream] = answer
        self._transport.write(frames.frame(stream, opcode, body))
        found: Answer = await answer
        if found.opcode == Opcode.ERROR:
            raise frames.error(found, self.features).to_exception()
        return found

    # ----------------------------------------------------------------------------------------------------- receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        answers, self._rest = frames.split(self._rest + data if self._rest else data)
        now = self._heard_at = self._loop.time()
        acknowledged = 0
        oldest = now
        for answer in answers:
            sent = self._sent.pop(answer.stream, None)
            if sent is None:
                self._other(answer)
                continue
            self._free.append(answer.stream)
            if answer.opcode == Opcode.RESULT:
                acknowledged += 1
                oldest = min(oldest, sent[2])
                sent[0].settle()
                if answer.flags:
                    self._look_at_payload(answer)
            else:
                self._failed(answer, sent)
        if acknowledged:
            metrics.WRITE_SECONDS.labels(self.cluster).observe(now - oldest)
            self.window = min(self._most, self.window + acknowledged / self.window)
        self.flush()

    def _other(self, answer: Answer) -> None:
        if (request := self._requests.pop(answer.stream, None)) is not None:
            self._free.append(answer.stream)
            if not request.done():
                request.set_result(answer)
        elif answer.stream in self._abandoned:
            self._abandoned.discard(answer.stream)
            self._free.append(answer.stream)

    def _look_at_payload(self, answer: Answer) -> None:
        if tablet := frames.content(answer).payload.get("tablets-routing-v1"):
            self.on_payload(tablet)

    def _failed(self, answer: Answer, sent: Sent) -> None:
        ticket, batch, _ = sent
        error = frames.error(answer, self.features)
        if error.code == frames.UNPREPARED:
            # The node was restarted or has evicted the statement: prepare it, then send the batch again.
            self.prepared = None
            self._queue.appendleft((ticket, batch))
            self.re_prepare()
            return
        failure = store_error(error.to_exception(), self.cluster)
        if isinstance(failure, TransientStoreError):
            self.window = max(LEAST_WINDOW, self.window / 2)
        ticket.fail(batch, failure)

    # ------------------------------------------------------------------------------------------------- time and loss

    def expire(self, now: float, timeout: float) -> None:
        """Give up batches sent longer ago than `timeout` seconds; a node that said nothing since is given up whole."""
        while self._sent:
            stream, (ticket, batch, sent_at) = next(iter(self._sent.items()))
            if now - sent_at < timeout:
                break
            if self._heard_at <= sent_at or len(self._abandoned) >= MAX_STREAMS // 2:
                self.close(f"no answer from {self.node} within {timeout:g} s")
                return
            del self._sent[stream]
            self._abandoned.add(stream)
            self.window = max(LEAST_WINDOW, self.window / 2)
            ticket.fail(
                batch, TransientStoreError(f"cluster {self.cluster}: {self.node} did not answer within {timeout:g} s")
            )

    def close(self, why: str) -> None:
        """End the connection; what is on its way fails with `why` and may be tried elsewhere."""
        if self._transport is not None:
            self._transport.abort()
        self._lost(why)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(f"lost the connection to {self.node}" + (f": {exc}" if exc else ""))

    def _lost(self, why: str) -> None:
        if self._transport is None:
            return
        self._transport = None
        error = TransientStoreError(f"cluster {self.cluster}: {why}")
        for request in self._requests.values():
            if not request.done():
                request.set_exception(ConnectionResetError(why))
        orphans = [(ticket, batch) for ticket, batch, _ in self._sent.values()] + list(self._queue)
        self._requests.clear()
        self._sent.clear()
        self._queue.clear()
        for ticket, batch in orphans:
            ticket.fail(batch, error)
        self._on_lost(self)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.flush()
