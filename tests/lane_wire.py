"""A lane whose network and clock are the test's: what it sent, what the node says to it, and how time goes by."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from eventstore.errors import StoreError
from eventstore.events.cells import STATEMENTS, Batch, TableName
from eventstore.store.lane.frames import HEADER, Opcode
from eventstore.store.lane.lane import QUIET_SECONDS, Lane
from eventstore.store.lane.line import Limits, Line
from eventstore.store.lane.ticket import Ticket
from tests.builders import batch, row
from tests.cql_values import Reader, integer, short, text

TIMEOUT = 4.0
UNPREPARED = 0x2500
OVERLOADED = 0x1001
INVALID = 0x2200
STATEMENT = b"statement"


@dataclass(frozen=True, slots=True)
class Frame:
    """One request as the node got it."""

    stream: int
    opcode: int
    body: bytes

    @property
    def uid(self) -> str:
        """Of its first row."""
        reader = Reader(self.body)
        if self.opcode == Opcode.EXECUTE:
            reader.take(reader.short() + 3)
        else:
            reader.take(4)
            reader.take(reader.short())
        return reader.cells()[0].decode()


class Wire(asyncio.Transport):
    """Collects what is written to it; `frames` takes it off."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.aborted = False
        self._reading = True
        self._bytes = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes += 1
        self._bytes += bytes(data)

    def abort(self) -> None:
        self.aborted = True

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        assert self._reading
        self._reading = False

    def resume_reading(self) -> None:
        assert not self._reading
        self._reading = True

    def frames(self) -> Iterator[Frame]:
        data, self._bytes = self._bytes, b""
        while data:
            version, _, stream, opcode, length = HEADER.unpack_from(data)
            assert version == 4
            yield Frame(stream, opcode, data[HEADER.size : HEADER.size + length])
            data = data[HEADER.size + length :]


@dataclass(slots=True)
class Told:
    """What a lane told its keeper."""

    losses: list[StoreError] = field(default_factory=list)
    unprepared_times: int = 0
    tablets: list[tuple[TableName, bytes]] = field(default_factory=list)
    bugs: list[Exception] = field(default_factory=list)

    def lost(self, line: Line, error: StoreError) -> None:
        self.losses.append(error)

    def unprepared(self, line: Line) -> None:
        self.unprepared_times += 1

    def learn(self, table: TableName, tablet: bytes) -> None:
        self.tablets.append((table, tablet))

    def crashed(self, bug: Exception) -> None:
        self.bugs.append(bug)


def answer(stream: int, opcode: int = Opcode.RESULT, body: bytes = integer(1), flags: int = 0) -> bytes:
    return HEADER.pack(0x84, flags, stream, opcode, len(body)) + body


def refusal(stream: int, code: int, more: bytes = b"") -> bytes:
    if code == UNPREPARED:
        more = short(len(STATEMENT)) + STATEMENT
    return answer(stream, Opcode.ERROR, integer(code) + text("as the test asked for") + more)


class LaneOnWire:
    """A lane that is ready, and its other end. Close it: it has an event loop of its own."""

    def __init__(self, in_flight: int = 64) -> None:
        self.now = 1_000.0
        self.told = Told()
        self.wire = Wire()
        self.loop = asyncio.new_event_loop()
        self.loop.time = lambda: self.now  # type: ignore[method-assign]
        self._numbers = count()
        self.lane = self.loop.run_until_complete(self._made(Limits(TIMEOUT, in_flight)))
        self.lane.connection_made(self.wire)
        self.prepare()

    async def _made(self, limits: Limits) -> Lane:
        return Lane("c30", "127.0.0.1:9042", limits, self.told)

    def prepare(self) -> None:
        self.lane.ready_with(dict.fromkeys(STATEMENTS.values(), STATEMENT))

    def batches(self, number: int, rows: int = 1) -> list[Batch]:
        """Each of a user of its own."""
        return [
            batch(*(row(uid=uid, number=each) for each in range(rows)))
            for uid in (f"u{next(self._numbers)}" for _ in range(number))
        ]

    def write(self, batches: list[Batch]) -> Ticket:
        ticket = Ticket(len(batches), self.now, self.loop.create_future())
        for each in batches:
            self.lane.send(ticket, each)
        self.lane.flush()
        return ticket

    def sent(self) -> list[Frame]:
        return list(self.wire.frames())

    def hear(self, *answers: bytes) -> None:
        """What the node has sent, as soon as the lane reads."""
        if not self.wire.is_reading() and not self.wire.aborted:
            self.be_quiet()
        self.lane.data_received(b"".join(answers))

    def be_quiet(self) -> None:
        """The time for which a lane collects acknowledgements passes."""
        self.now += QUIET_SECONDS
        self.loop.run_until_complete(asyncio.sleep(0))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.lane.expire(self.now)

    def close(self) -> None:
        self.lane.connection_lost(None)
        self.loop.close()
