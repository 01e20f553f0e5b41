"""A line that carries batches: keeps the window and the deadlines, counts the acknowledgements."""

from collections import deque
from collections.abc import Mapping
from typing import Final

from eventstore import metrics
from eventstore.accelerator import ACCELERATOR
from eventstore.errors import StoreError, TransientStoreError
from eventstore.events.cells import STATEMENTS, Batch, table_of
from eventstore.store.failures import store_error
from eventstore.store.lane import frames
from eventstore.store.lane.frames import Answer, Opcode, Prepared
from eventstore.store.lane.line import TABLET, Keeper, Limits, Line
from eventstore.store.lane.ticket import Ticket
from eventstore.store.lane.window import Window

STREAMS: Final = 2_048
MOST_IN_FLIGHT: Final = STREAMS // 2
MOST_ABANDONED: Final = STREAMS // 4
"""What is left beyond the two is for control requests: a stream is always free."""


WORTH_A_CALL: Final = 1 / 8
"""Of the window: batches that wait go out together, while the node still has most of a window to work on."""
QUIET_SECONDS: Final = 0.003
"""While batches wait for the window, acknowledgements are collected for so long before they are read: each read of a few wakes
the process from its sleep, and half of a batch's CPU was that."""

_wire, _acknowledged = (
    (ACCELERATOR.wire, ACCELERATOR.acknowledged) if ACCELERATOR else (frames.wire, frames.acknowledged)
)


Sent = tuple[Ticket, Batch, float, int]
"""What an answer is for, when it was sent (event loop's clock), and in which turn: each `flush` is one."""


class Lane(Line):
    """A connection that has shaken hands and prepared its statements; batches sent then go out in order.

    Batches beyond its window wait here, bounded by what the workers may have in flight.
    """

    statements = tuple(STATEMENTS.values())

    def __init__(self, cluster: str, node: str, limits: Limits, keeper: Keeper) -> None:
        super().__init__(cluster, node, limits, keeper)
        self.acknowledged = 0
        """Batches so far."""
        self.window = Window(float(min(limits.in_flight, MOST_IN_FLIGHT)))
        self._seconds = metrics.WRITE_SECONDS.labels(cluster)
        self._writable = True
        self._quiet = False
        """Not reading for a moment."""
        self._rest = b""
        self._prepared: Prepared | None = None
        self._prepared_in = 0
        self._turn = 0
        self._free = list(range(STREAMS - 1, -1, -1))
        self._sent: dict[int, Sent] = {}
        """By stream, the oldest first: a dict keeps the order of insertion, so deadlines need no timer of their own."""
        self._queue: deque[tuple[Ticket, Batch]] = deque()

    @property
    def load(self) -> int:
        """Batches on their way or waiting for the window."""
        return len(self._sent) + len(self._queue)

    def ready_with(self, ids: Mapping[str, bytes]) -> None:
        """The statements are prepared: what waits goes out."""
        self._prepared = Prepared.of({head: ids[name] for head, name in STATEMENTS.items()})
        self._prepared_in = self._turn
        self.flush()

    # ------------------------------------------------------------------------------------------------------- sending

    def send(self, ticket: Ticket, batch: Batch) -> None:
        """Queue a batch; `flush` puts it on the wire."""
        self._queue.append((ticket, batch))

    def flush(self) -> None:
        """Write what the window allows, in one system call; nothing while only little of the window is free."""
        free = int(self.window.size) - len(self._sent)
        room = min(free, len(self._queue))
        if (
            room <= 0
            or (free < self.window.size * WORTH_A_CALL and self._sent)
            or not self._writable
            or self._transport is None
            or self._prepared is None
        ):
            return
        now = self._loop.time()
        self._turn += 1
        if not self._sent:
            self._heard_at = now  # silence counts from here
        streams = self._free[-room:]
        del self._free[-room:]
        batches = []
        for stream in streams:
            ticket, batch = self._queue.popleft()
            self._sent[stream] = (ticket, batch, now, self._turn)
            batches.append(batch)
        data = _wire(self._prepared, batches, streams)
        self._transport.write(data)

    # ----------------------------------------------------------------------------------------------------- receiving

    def _heard(self, data: bytes) -> None:
        buffer = self._rest + data if self._rest else data
        # the answer to a control request is a result like any other, but for what it says
        streams, offset = ([], 0) if self._requests else _acknowledged(buffer)
        answers, self._rest = frames.split(buffer[offset:] if offset else buffer)
        self._take(streams, answers)
        if self._queue and self._transport is not None and not self._quiet:
            self._quiet = True
            self._transport.pause_reading()
            self._loop.call_later(QUIET_SECONDS, self._read_on)

    def _read_on(self) -> None:
        self._quiet = False
        if self._transport is not None:
            self._transport.resume_reading()

    def _take(self, streams: list[int], answers: list[Answer]) -> None:
        """What a read has brought: the streams of plain acknowledgements, and whatever came behind them."""
        now = self._heard_at = self._loop.time()
        self._acknowledge(streams, now)
        for answer in answers:
            if (sent := self._sent.get(answer.stream)) is None:
                self._answered(answer)
            elif answer.opcode == Opcode.RESULT:
                if answer.flags:
                    self._look_at_payload(answer, sent)
                self._acknowledge([answer.stream], now)
            else:
                self._failed(answer, sent, now)
                del self._sent[answer.stream]
                self._free.append(answer.stream)
        self.flush()

    def _acknowledge(self, streams: list[int], now: float) -> None:
        take, free = self._sent.pop, self._free.append
        acknowledged = 0
        oldest = now
        for stream in streams:
            if (sent := take(stream, None)) is None:
                self._late(stream)
                continue
            ticket, _, sent_at, _ = sent
            free(stream)
            acknowledged += 1
            if sent_at < oldest:  # noqa: PLR1730 — a call less for each batch
                oldest = sent_at
            ticket.left -= 1
            if not ticket.left:
                ticket.end()
        if acknowledged:
            self._seconds.observe(now - oldest)
            self.acknowledged += acknowledged
            if self._queue:
                self.window.grow(acknowledged)

    def _look_at_payload(self, answer: Answer, sent: Sent) -> None:
        if tablet := frames.content(answer).payload.get(TABLET):
            _, batch, _, _ = sent
            self._keeper.learn(table_of(batch[0]), tablet)

    def _failed(self, answer: Answer, sent: Sent, now: float) -> None:
        ticket, batch, _, turn = sent
        error = frames.error(answer, self.features)
        if error.code == frames.UNPREPARED and now - ticket.started < self._timeout:
            self._queue.appendleft((ticket, batch))
            # of all that were sent with the forgotten ids, the first answer has it prepared
            if self._prepared is not None and turn > self._prepared_in:
                self._prepared = None
                self._keeper.unprepared(self)
            return
        failure = store_error(error.to_exception(), self.cluster)
        if isinstance(failure, TransientStoreError):
            self.window.shrink(turn, self._turn)
        ticket.fail(batch, failure)

    # ------------------------------------------------------------------------------------------------- time and loss

    def expire(self, now: float) -> None:
        """Give up batches that were sent or have waited too long ago; a node that says nothing is given up whole."""
        while self._sent:
            stream, (ticket, batch, sent_at, turn) = next(iter(self._sent.items()))
            if now - sent_at < self._timeout:
                break
            error = self._transient(f"{self.node} did not answer within {self._timeout:g} s")
            if self._heard_at <= sent_at or len(self._abandoned) >= MOST_ABANDONED:
                self.close(error)
                return
            del self._sent[stream]
            self._abandoned.add(stream)
            self.window.shrink(turn, self._turn)
            ticket.fail(batch, error)
        while self._queue and now - self._queue[0][0].started >= self._timeout:
            ticket, batch = self._queue.popleft()
            ticket.fail(batch, self._transient(f"{self.node} took no more batches for {self._timeout:g} s"))
        self.flush()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        try:
            self.flush()
        except Exception as bug:  # noqa: BLE001 — as in `data_received`
            self._crash(bug)

    def _orphan(self, error: StoreError) -> None:
        orphans = [(ticket, batch) for ticket, batch, _, _ in self._sent.values()] + list(self._queue)
        self._sent.clear()
        self._queue.clear()
        for ticket, batch in orphans:
            ticket.fail(batch, error)

    def crash(self, bug: Exception) -> None:
        for ticket in [sent[0] for sent in self._sent.values()] + [ticket for ticket, _ in self._queue]:
            ticket.crash(bug)
