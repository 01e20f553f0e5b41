"""Members of a group as a state machine: whatever the interleaving, a commit never passes a record that nobody finished."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from confluent_kafka import OFFSET_BEGINNING, Message
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eventstore.stream.assignment import Assignments, ConsumerPolicy, Place
from eventstore.stream.chunk import Chunk

pytestmark = pytest.mark.properties

PLACE = Place("events", 0)
POLICY = ConsumerPolicy(chunk_records=4, in_flight_records=12)
LOG = [offset for offset in range(300) if offset % 7 != 3]
"""The partition's offsets. Gaps are what compaction and transactions leave."""


@dataclass(eq=False)
class Member:
    released: int = 0
    taken: int = 0
    position: int | None = None
    """Where it reads on, if it believes that the partition is its own."""
    leaving: bool = False
    """It is draining the partition."""
    posted: deque[Chunk] = field(default_factory=deque)
    """Taken by its pump and on their way to its loop."""
    claimed: list[Chunk] = field(default_factory=list)
    requests: deque[int] = field(default_factory=deque)
    """Commits that Kafka has not answered."""

    def __post_init__(self) -> None:
        self.assignments = Assignments(POLICY, self.release)

    def release(self, chunk: Chunk) -> None:
        self.released += len(chunk)


Test = Callable[[Member], bool]


class GroupMachine(RuleBasedStateMachine):
    """Two members and a partition. What pump and loop do are steps of their own, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.members = [Member(), Member()]
        self.owner: Member | None = None
        """Whose commits Kafka takes."""
        self.committed: int | None = None
        self.stored: set[int] = set()
        """Offsets that some member has stored, at least once."""
        self.stuck = False
        """The owner has a chunk that will never be finished."""
        self.give_to(self.members[0])

    def one(self, data: st.DataObject, test: Test) -> Member | None:
        able = [member for member in self.members if test(member)]
        return data.draw(st.sampled_from(able)) if able else None

    @precondition(lambda self: self.owner is None)
    @rule(data=st.data())
    def assign(self, data: st.DataObject) -> None:
        if member := self.one(data, lambda m: m.position is None):
            self.give_to(member)

    def give_to(self, member: Member) -> None:
        start = OFFSET_BEGINNING if self.committed is None else self.committed
        self.owner, self.stuck = member, False
        member.position, member.leaving = max(start, 0), False
        member.assignments.add({PLACE: start})

    @rule(back=st.sampled_from([0, 0, 0, 1, 4]), count=st.integers(1, 5), booked=st.booleans())
    def fetch(self, *, back: int, count: int, booked: bool) -> None:
        for member in self.members:
            self.fetch_into(member, back, count)
            if booked:
                self.book_all(member)

    def fetch_into(self, member: Member, back: int, count: int) -> None:
        """Now and then the client gives records again that it has given before."""
        if member.position is None:
            return
        found = [o for o in LOG if o >= member.position - back][: min(count, member.assignments.credit())]
        if found:
            member.position = max(member.position, found[-1] + 1)
            messages = [Message(topic=PLACE.topic, partition=PLACE.partition, offset=o, value=b"x") for o in found]
            if (chunk := member.assignments.take(PLACE, messages)) is not None:
                member.taken += len(chunk)
                member.posted.append(chunk)

    @rule()
    def book(self) -> None:
        for member in self.members:
            self.book_all(member)

    def book_all(self, member: Member) -> None:
        while member.posted:
            member.assignments.book([member.posted.popleft()])

    @rule()
    def claim(self) -> None:
        for member in self.members:
            if (chunk := member.assignments.next_waiting()) is not None and (haul := chunk.haul()) is not None:
                assert len(haul) <= POLICY.chunk_records
                member.claimed.extend(haul.chunks)

    @precondition(lambda self: any(member.claimed for member in self.members))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Chunks of assignments that are over finish, too."""
        if member := self.one(data, lambda m: bool(m.claimed)):
            self.store(member, data.draw(st.integers(0, len(member.claimed) - 1)))

    def store(self, member: Member, number: int) -> None:
        chunk = member.claimed.pop(number)
        self.stored.update(message.offset() for message in chunk.messages)
        chunk.finish()
        chunk.finish()  # whoever says it twice does no harm

    @initialize(rounds=st.integers(1, 3), left=st.integers(0, 2))
    def begin(self, rounds: int, left: int) -> None:
        self.run(rounds=rounds, left=left, heard=True)

    @rule(rounds=st.integers(1, 3), left=st.integers(0, 2), heard=st.booleans())
    def run(self, *, rounds: int, left: int, heard: bool) -> None:
        """What happens most of the time, with some chunks left open and some commits not answered."""
        for _ in range(rounds):
            self.fetch(back=0, count=4, booked=True)
            self.claim()
            self.commit()
            for member in self.members:
                while len(member.claimed) > left:
                    self.store(member, 0)
                while len(member.requests) > left:
                    self.hear(member, taken=heard and self.take_commit(member, member.requests[0]))

    @rule()
    def commit(self) -> None:
        for member in self.members:
            member.requests.extend(member.assignments.committable().values())

    @precondition(lambda self: any(member.requests for member in self.members))
    @rule(data=st.data(), heard=st.booleans(), answered=st.booleans())
    def answer(self, data: st.DataObject, *, heard: bool, answered: bool) -> None:
        """Kafka takes a commit or not, and its answer arrives or not."""
        if member := self.one(data, lambda m: bool(m.requests)):
            taken = heard and self.take_commit(member, member.requests[0])
            self.hear(member, taken=taken and answered)

    def hear(self, member: Member, *, taken: bool) -> None:
        member.assignments.answered(PLACE, member.requests.popleft(), committed=taken)

    def take_commit(self, member: Member, offset: int) -> bool:
        if self.owner is not member:  # Kafka fences those that it has expelled
            return False
        self.committed = offset
        return True

    @precondition(lambda self: any(member.leaving for member in self.members))
    @rule(data=st.data(), heard=st.booleans())
    def end_to_revoke(self, data: st.DataObject, *, heard: bool) -> None:
        if member := self.one(data, lambda m: m.leaving):
            self.give_up(member, heard=heard)

    def give_up(self, member: Member, *, heard: bool) -> None:
        for offset in member.assignments.committable([PLACE]).values():
            if heard:
                self.take_commit(member, offset)
        self.forget(member)
        if self.owner is member:
            self.owner = None

    def forget(self, member: Member) -> None:
        member.assignments.remove([PLACE])
        member.leaving, member.position = False, None

    @rule(data=st.data())
    def hear_of_loss(self, data: st.DataObject) -> None:
        if member := self.one(data, lambda m: m.position is not None and self.owner is not m):
            self.forget(member)

    @rule(which=st.integers(0, 1), what=st.sampled_from(["nothing"] * 4 + ["revoke", "move", "expel", "fail", "crash"]))
    def disturb(self, which: int, what: str) -> None:
        member = self.members[which]
        if what == "revoke" and member.position is not None:
            member.leaving = True
            member.assignments.withhold([PLACE])
        elif what == "move" and self.owner is not None:  # to another member, or away and back again
            self.fetch(back=0, count=2, booked=True)
            self.owner.assignments.withhold([PLACE])
            self.give_up(self.owner, heard=True)
            if member.position is None:
                self.give_to(member)
        elif what == "expel":  # the member does not know it yet
            self.owner = None
        elif what == "fail" and member.claimed:
            member.claimed.pop()
            self.stuck = True
        elif what == "crash":
            self.owner = None if self.owner is member else self.owner
            self.members[which] = Member()

    @invariant()
    def kafka_is_never_past_a_record_that_nobody_finished(self) -> None:
        assert {offset for offset in LOG if offset < (self.committed or 0)} <= self.stored

    @invariant()
    def the_credit_used_is_that_of_the_chunks_in_flight(self) -> None:
        for member in self.members:
            posted = sum(map(len, member.posted))
            assert member.assignments.in_flight_records == member.taken - member.released
            assert member.assignments.in_flight_records >= posted
            if member.position is None:
                assert member.assignments.in_flight_records == posted

    def teardown(self) -> None:
        """When everything is finished and Kafka takes every commit, nothing that was read stays behind."""
        for member in self.members:
            member.assignments.book(member.posted)
            while (chunk := member.assignments.next_waiting()) is not None and (haul := chunk.haul()) is not None:
                member.claimed.extend(haul.chunks)
            while member.claimed:
                self.store(member, 0)
            member.requests.extend(member.assignments.committable().values())
            while member.requests:
                self.hear(member, taken=self.take_commit(member, member.requests[0]))
            if self.owner is member and not self.stuck and not member.leaving:
                read = [offset for offset in LOG if offset < (member.position or 0)]
                assert not read or (self.committed or 0) > read[-1]
        super().teardown()


TestGroupMachine = GroupMachine.TestCase
TestGroupMachine.settings = settings(stateful_step_count=50, max_examples=100)
