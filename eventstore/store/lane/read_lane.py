"""A line that carries reads: each has a future, is prepared again when the node has forgotten it, and keeps its deadline."""

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

from cassandra.protocol import PreparedQueryNotFound

from eventstore.errors import StoreError
from eventstore.events.cells import Cells, table_of
from eventstore.store.lane import frames
from eventstore.store.lane.frames import HEADER, Answer, Opcode
from eventstore.store.lane.line import TABLET, Keeper, Limits, Line

MOST_STREAMS: Final = 32_768
"""As many as the protocol has."""
STREAMS_AT_ONCE: Final = 256
"""Streams are numbered when they are needed."""
MOST_ABANDONED: Final = 4_096


class Question(NamedTuple):
    """What a prepared statement is asked."""

    statement: str
    """Its file of `schemas/cql`."""
    key: Cells
    """The cells of the partition key, which all statements bind first, behind the head of a row of their table."""
    others: bytes
    """The cells of the other values."""
    values: int
    """How many values there are, the key's included."""

    def asked(self, statement: bytes, rows: int, state: bytes | None) -> bytes:
        """The body of the request for a page, to a node that knows the statement by this id."""
        return frames.read(statement, self.values, self.key[2:] + self.others, rows, state)


class ReadLane(Line):
    """Reads one page a request; how many are on their way is for whoever asks to bound.

    A slow read is no sign of a dead node: one that has been silent for half a time-out is asked whether it is there.
    """

    statements = (
        "read_slice", "read_named_slice", "read_named_moment", "count_slice", "count_named_slice", "count_named_moment",
        "read_latest", "read_seen_posts", "read_posts",
    )  # fmt: skip

    def __init__(self, cluster: str, node: str, limits: Limits, keeper: Keeper) -> None:
        super().__init__(cluster, node, limits, keeper)
        self._ids: Mapping[str, bytes] = {}
        self._ready = asyncio.Event()
        self._streams = 0
        self._sent_at: dict[int, float] = {}
        """By stream, the oldest first."""
        self._asked_at = 0.0
        """When the node was last asked whether it is there."""
        self._parts: list[bytes] = []
        self._have = 0
        self._need = HEADER.size
        """Bytes until the next answer can be whole."""

    @property
    def load(self) -> int:
        return len(self._requests) + len(self._abandoned)

    def ready_with(self, ids: Mapping[str, bytes]) -> None:
        self._ids = ids
        self._ready.set()

    async def page(self, question: Question, rows: int, state: bytes | None) -> bytes:
        """The body of the RESULT that has the page of at most `rows` rows behind `state`.

        Raises:
            TimeoutError: no answer in time.
            StoreError: the connection was lost first.
            cassandra.protocol.ErrorMessage: the node answered with an error; or the driver's exception for it.
        """
        began = self._loop.time()
        while True:
            await self._ready.wait()  # ends: who prepares again closes the line if it fails
            ids = self._ids
            try:
                answer = await self.ask(Opcode.EXECUTE, question.asked(ids[question.statement], rows, state))
            except PreparedQueryNotFound:
                if self._loop.time() - began >= self._timeout:
                    raise
                self._forgotten(ids)
            else:
                return self._body(answer, question)

    def expire(self, now: float) -> None:
        while self._sent_at:
            stream, sent_at = next(iter(self._sent_at.items()))
            if now - sent_at < self._timeout:
                break
            error = f"{self.node} did not answer within {self._timeout:g} s"
            if self._heard_at <= sent_at or len(self._abandoned) >= MOST_ABANDONED:
                self._give_up(stream, error)
                self.close(self._transient(error))
                return
            self._give_up(stream, error)
        silent_since = max(self._heard_at, self._asked_at, next(iter(self._sent_at.values()), now))
        if now - silent_since >= self._timeout / 2 and self.load < MOST_STREAMS:
            self._asked_at = now
            self._request(Opcode.OPTIONS, b"").cancel()  # that there is an answer is all it says

    def crash(self, bug: Exception) -> None:
        for request in self._requests.values():
            if not request.done():
                request.set_exception(bug)

    # ------------------------------------------------------------------------------------------------------- sending

    def _request(self, opcode: Opcode, body: bytes) -> asyncio.Future[Answer]:
        if not self._free:
            if self._streams == MOST_STREAMS:
                raise self._transient(
                    f"{self.node} has {MOST_STREAMS} reads to answer; the same request may succeed later"
                )
            self._free = list(range(self._streams, self._streams + STREAMS_AT_ONCE))
            self._streams += STREAMS_AT_ONCE
        stream = self._free[-1]
        answer = super()._request(opcode, body)
        self._sent_at[stream] = self._loop.time()
        return answer

    def _forgotten(self, ids: Mapping[str, bytes]) -> None:
        """Of all that were sent with these ids, the first answer has them prepared again."""
        if ids is self._ids and self._ready.is_set():
            self._ready.clear()
            self._keeper.unprepared(self)

    # ----------------------------------------------------------------------------------------------------- receiving

    def _heard(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return
        answers, rest = frames.split(b"".join(self._parts) if len(self._parts) > 1 else data)
        self._parts = [rest] if rest else []
        self._have = len(rest)
        self._need = HEADER.size if self._have < HEADER.size else HEADER.size + HEADER.unpack_from(rest)[-1]
        for answer in answers:
            self._sent_at.pop(answer.stream, None)
            self._answered(answer)

    def _body(self, answer: Answer, question: Question) -> bytes:
        if not answer.flags:
            return answer.body
        payload, body = frames.content(answer)
        if tablet := payload.get(TABLET):
            self._keeper.learn(table_of(question.key), tablet)
        return body

    # ---------------------------------------------------------------------------------------------------------- loss

    def _give_up(self, stream: int, error: str) -> None:
        del self._sent_at[stream]
        request = self._requests.pop(stream)
        self._abandoned.add(stream)
        if not request.done():
            request.set_exception(TimeoutError(error))

    def _orphan(self, _: StoreError) -> None:
        self._sent_at.clear()
        self._ready.set()  # who waits for the statements is told of the loss when it sends
