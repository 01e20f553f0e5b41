"""What a group member owns: each partition's ledger and open chunks, and the credit that these use.

Rules only: no Kafka client, no clock, no waiting. Two threads use it. The **pump** takes records and commits; the **event
loop** books chunks, hands them out and takes them back. Whatever both write has one writer for each direction.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from eventstore.stream.chunk import Chunk, Haul, Member, Record, State
from eventstore.stream.ledger import Ledger

RECORD_OVERHEAD_BYTES: Final = 384
"""What a record weighs beside its value: its key, and the client's object for it (measured: 340 with a key of 12 bytes)."""


class Place(NamedTuple):
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class ConsumerPolicy:
    chunk_records: int = 2_000
    in_flight_records: int = 16_000
    in_flight_bytes: int = 16 * 2**20
    commit_seconds: float = 1.0
    drain_seconds: float = 5.0
    ends: Mapping[Place, int] | None = None
    """Where reading ends, exclusive: what lies at or beyond is never handed out, nor is a partition that is not named.
    None: reading goes on for ever."""


@dataclass(slots=True, eq=False)
class Assignment:
    """One assignment of one partition to this member. Another one, later, is another object: what finishes late for this
    one changes nothing there.
    """

    place: Place
    start: int
    """The offset at which reading starts; negative: the beginning."""
    end: int | None
    """Where reading ends, exclusive; None: never."""
    next_offset: int
    """The offset that the next record must have at least."""
    ledger: Ledger = field(default_factory=Ledger)
    open_chunks: set[Chunk] = field(default_factory=set)
    """Handed out and not finished."""
    revoked: bool = False
    ended: bool = False
    """There is nothing more to read before `end`."""
    sent: deque[int] = field(default_factory=deque)
    """Offsets that Kafka was asked to commit and has not answered for."""

    def close(self) -> None:
        """All records before the end have been taken: when they are finished, the end itself can be committed.

        Of a partition that is being given up, the last records may have been dropped: its end is not ours to commit.
        """
        if self.end is not None and self.end > self.start and not self.revoked:
            self.ledger.skip_to(self.end)


class Assignments(Member):
    """All partitions of a member. `on_release` is called on the event loop with every chunk that gives its credit back."""

    def __init__(self, policy: ConsumerPolicy, on_release: Callable[[Chunk], None]) -> None:
        self._policy = policy
        self._on_release = on_release
        self._by_place: dict[Place, Assignment] = {}
        self._waiting: deque[Chunk] = deque()
        # The pump takes, the loop gives back.
        self._taken = self._taken_bytes = 0
        self._released = self._released_bytes = 0
        self._record_bytes = 1_024
        """Size of a record: how many fit into the bytes left. A chunk's mean; it falls slowly, lest huge records between
        small ones come unexpected."""

    @property
    def places(self) -> frozenset[Place]:
        return frozenset(self._by_place)

    @property
    def in_flight_records(self) -> int:
        return self._taken - self._released

    @property
    def in_flight_bytes(self) -> int:
        return self._taken_bytes - self._released_bytes

    @property
    def moved(self) -> tuple[int, int, frozenset[Place]]:
        """Changes whenever a record is taken or given back, or the assignment changes."""
        return self._taken, self._released, self.places

    # ----------------------------------------------------------------------------------------------------- the pump

    def credit(self) -> int:
        """Records that may be taken now: bounded by count, and by bytes at the size records had lately."""
        records = self._policy.in_flight_records - self.in_flight_records
        room = self._policy.in_flight_bytes - self.in_flight_bytes
        if records <= 0 or room <= 0:
            return 0
        return min(self._policy.chunk_records, records, room // self._record_bytes + 1)

    def take(self, place: Place, records: Sequence[Record]) -> Chunk | None:
        """A chunk of consecutive records, to be booked on the loop; None if none of them is ours to do."""
        assignment = self._by_place.get(place)
        if assignment is None or assignment.revoked or not (records := _wanted(assignment, records)):
            return None
        assignment.next_offset = records[-1].offset() + 1
        size = _weight(records)
        chunk = Chunk(place.topic, place.partition, records, size, self)
        chunk.ledger = assignment.ledger
        self._taken += len(chunk)
        self._taken_bytes += size
        self._record_bytes = max(size // len(chunk), self._record_bytes // 2)
        return chunk

    def arrived(self, place: Place, offset: int) -> Assignment | None:
        """Reading has come to `offset`. The assignment to close on the loop, if that is its end and news."""
        assignment = self._by_place.get(place)
        if assignment is None or assignment.end is None or assignment.ended or offset < assignment.end:
            return None
        assignment.ended = True
        return assignment

    def unended(self) -> list[Place]:
        """Partitions that there is more to read of."""
        return [place for place, assignment in self._by_place.items() if not assignment.ended]

    def committable(self, places: Iterable[Place] | None = None) -> dict[Place, int]:
        """Offsets that Kafka may be asked to commit, and from here on is asked to."""
        found = {}
        for place in list(self._by_place) if places is None else places:
            assignment = self._by_place.get(place)
            if assignment is not None and (offset := assignment.ledger.committable()) is not None:
                assignment.sent.append(offset)
                found[place] = offset
        return found

    def answered(self, place: Place, offset: int, *, committed: bool) -> None:
        """Kafka's answer to a request to commit; one that an earlier assignment asked for means nothing to this one."""
        assignment = self._by_place.get(place)
        if assignment is None or offset not in assignment.sent:
            return
        assignment.sent.remove(offset)
        if committed:
            assignment.ledger.committed(offset)

    def done_to(self, place: Place) -> int:
        """The offset up to which everything is finished; negative: not even the partition's beginning."""
        assignment = self._by_place[place]
        done = assignment.ledger.finished_to
        return assignment.start if done is None else done

    # ----------------------------------------------------------------------------------------------------- the loop

    def add(self, starts: Mapping[Place, int]) -> None:
        """Partitions that are ours from now on, and the offsets at which reading starts."""
        ends = self._policy.ends
        for place, start in starts.items():
            end = None if ends is None else ends.get(place, start)
            self._by_place[place] = Assignment(place, start, end, next_offset=start)

    def book(self, chunks: Iterable[Chunk]) -> None:
        """Enter chunks in their ledgers, in the order in which they were taken."""
        for chunk in chunks:
            assignment = self._by_place.get(Place(chunk.topic, chunk.partition))
            if assignment is None or assignment.ledger is not chunk.ledger or assignment.revoked:
                self._drop(chunk)
                continue
            chunk.entry = chunk.ledger.open(chunk.first, chunk.last)
            assignment.open_chunks.add(chunk)
            self._waiting.append(chunk)

    def next_waiting(self) -> Chunk | None:
        """The oldest chunk that nobody has been given."""
        while self._waiting:
            chunk = self._waiting.popleft()
            if chunk.state is State.WAITING:
                return chunk
        return None

    def haul(self, chunk: Chunk) -> Haul | None:
        """Claim a chunk, and those that wait behind it as long as all of them are no more than one may be; None if the chunk
        was dropped and nothing is behind it.
        """
        claimed = [chunk] if chunk.claim() else []
        room = self._policy.chunk_records - sum(map(len, claimed))
        while self._waiting and len(self._waiting[0]) <= room:
            if (behind := self._waiting.popleft()).claim():
                claimed.append(behind)
                room -= len(behind)
        return Haul(claimed) if claimed else None

    def finish(self, chunk: Chunk) -> None:
        """Take a chunk back; one that was dropped or finished before changes nothing."""
        if chunk.state in (State.WAITING, State.CLAIMED):
            chunk.state = State.FINISHED
            chunk.ledger.finish(chunk.entry)
            self._release(chunk)

    def withhold(self, places: Iterable[Place]) -> None:
        """Take no more of these, and drop what nobody has started on."""
        for assignment in self._owned(places):
            assignment.revoked = True
            for chunk in [c for c in assignment.open_chunks if c.state is State.WAITING]:
                self._drop(chunk)

    def open_chunks(self, places: Iterable[Place]) -> int:
        return sum(len(assignment.open_chunks) for assignment in self._owned(places))

    def remove(self, places: Iterable[Place]) -> None:
        """Forget partitions, and give the credit of their unfinished chunks back."""
        for assignment in self._owned(places):
            for chunk in list(assignment.open_chunks):
                self._drop(chunk)
            del self._by_place[assignment.place]

    def _owned(self, places: Iterable[Place]) -> list[Assignment]:
        return [found for place in places if (found := self._by_place.get(place)) is not None]

    def _drop(self, chunk: Chunk) -> None:
        chunk.state = State.DROPPED
        self._release(chunk)

    def _release(self, chunk: Chunk) -> None:
        assignment = self._by_place.get(Place(chunk.topic, chunk.partition))
        if assignment is not None:
            assignment.open_chunks.discard(chunk)
        self._released += len(chunk)
        self._released_bytes += chunk.size
        self._on_release(chunk)


def _wanted(assignment: Assignment, records: Sequence[Record]) -> Sequence[Record]:
    """Those not taken before and not beyond the end: nearly always all of them."""
    first, end = assignment.next_offset, assignment.end
    if records[0].offset() < first or (end is not None and records[-1].offset() >= end):
        return [r for r in records if r.offset() >= first and (end is None or r.offset() < end)]
    return records


def _weight(records: Sequence[Record]) -> int:
    """Bytes that the records hold in memory, about. Keys and headers count: a batch of huge ones compresses to nothing."""
    keys = filter(None, map(Record.key, records))
    headers = filter(None, map(Record.headers, records))
    named = sum(len(name) + len(value or b"") for each in headers for name, value in each)
    return sum(map(len, records)) + sum(map(len, keys)) + named + RECORD_OVERHEAD_BYTES * len(records)
