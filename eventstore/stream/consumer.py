"""A member of a consumer group that hands out chunks and commits the finished prefix of each partition.

Two threads share the work. The **pump** makes every call into confluent-kafka: from 2.16 on these calls are serialised
behind a gate that a loop of `consume()` starves, so a `commit()` from elsewhere can wait for seconds. The **event loop**
owns chunks and ledgers. The pump posts chunks to the loop; on a revocation it waits, for a bounded time, until the loop
has drained what is being worked on.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from time import monotonic
from typing import Any, NamedTuple

import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, Consumer, KafkaException, Message, TopicPartition
from confluent_kafka import KafkaError as Fault

from eventstore import metrics
from eventstore.errors import KafkaError, PermanentKafkaError, TransientKafkaError
from eventstore.stream.chunk import Chunk, Member, State
from eventstore.stream.failures import kafka_error
from eventstore.stream.ledger import Ledger

log = structlog.stdlib.get_logger(__name__)

POLL_SECONDS = 0.02
"""Longest linger of a fetch that is not full, and so the longest wait of a commit or a stop for the pump."""
KAFKA_SECONDS = 10.0
"""Longest wait for a broker's answer to a blocking call (committed offsets, watermarks)."""
DOING = "consuming"
RECORD_OVERHEAD_BYTES = 512
"""What a record weighs beside its value: its key, and the client's object for it."""
PAUSE_AFTER_SECONDS = 0.5
"""A stall longer than this pauses the partitions: shorter ones are not worth losing the prefetched records."""


class Place(NamedTuple):
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


@dataclass(frozen=True, slots=True)
class ConsumerPolicy:
    chunk_records: int = 2_000
    in_flight_records: int = 16_000
    in_flight_bytes: int = 32 * 2**20
    commit_seconds: float = 1.0
    drain_seconds: float = 5.0


@dataclass(slots=True)
class Assignment:
    """One assignment of one partition: its ledger and the chunks handed out and not finished."""

    place: Place
    ledger: Ledger = field(default_factory=Ledger)
    open_chunks: set[Chunk] = field(default_factory=set)
    start: int = OFFSET_BEGINNING
    """Where this member began to read."""
    next_offset: int = -1
    revoked: bool = False


AssignmentListener = Callable[[frozenset[Place]], Coroutine[Any, Any, None]]


class ChunkConsumer(Member):
    """Hands out chunks (`next`), takes them back (`Chunk.finish`), commits, and survives rebalances.

    `on_assignment` is awaited on the loop with the whole assignment whenever it changes, before the first chunk of a new
    partition; `on_fatal` is called on the loop once, with the error that ended the pump.
    """

    def __init__(
        self,
        config: dict[str, Any],
        policy: ConsumerPolicy,
        on_assignment: AssignmentListener,
        on_fatal: Callable[[KafkaError], None],
    ) -> None:
        self.policy = policy
        self._on_assignment = on_assignment
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Chunk] = deque()
        self._arrived = asyncio.Event()
        self._progress = asyncio.Event()
        self._assignments: dict[Place, Assignment] = {}
        # Each counter has one writer: the pump takes, the loop gives back.
        self._taken = self._taken_bytes = 0
        self._released = self._released_bytes = 0
        self._room = threading.Event()
        self._stopping = threading.Event()
        self._topics: tuple[str, ...] = ()
        self._holding = False
        self._paused = False
        self._record_bytes = 1_024
        """Mean size of the records of the last fetch: how many fit into the bytes left."""
        self._next_commit = 0.0
        self.turned_at: float | None = None
        """When the pump last began a turn; None before its first. Monotonic seconds, as below."""
        self.outside_since: float | None = None
        """Since when we have no assignment of the group's; None while we have one, be it of no partitions (others are enough).

        Under KIP-848 nobody tells a member that it gets none, so there only a lost assignment counts.
        """
        self._told_of_none = config.get("group.protocol") != "consumer"
        self._consumer = Consumer(
            {
                **config,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # A committed offset that the log no longer holds must stop us, not move us: see `_start_offsets`.
                "auto.offset.reset": "error",
                "on_commit": self._commit_answered,
                "error_cb": self._client_error,
            }
        )
        self._thread = threading.Thread(target=self._pump, name="kafka-pump", daemon=True)

    # ------------------------------------------------------------------------------------------- on the event loop

    def start(self, topics: Sequence[str]) -> None:
        """Join the group.

        Raises:
            PermanentKafkaError: a topic does not exist.
            TransientKafkaError: no broker answers.
        """
        self._refuse_unknown(topics)
        self._topics = tuple(topics)
        self._consumer.subscribe(list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        self.outside_since = monotonic() if self._told_of_none else None
        self._thread.start()

    async def next(self) -> Chunk:
        """The next chunk whose partition is still ours."""
        while True:
            while self._waiting:
                chunk = self._waiting.popleft()
                if chunk.state is State.WAITING:
                    return chunk
            self._arrived.clear()
            await self._arrived.wait()

    def finish(self, chunk: Chunk) -> None:
        """Take a chunk back; one that was dropped or finished before changes nothing."""
        if chunk.state not in (State.WAITING, State.CLAIMED):
            return
        chunk.state = State.FINISHED
        chunk.ledger.finish(chunk.entry)
        self._release(chunk)

    async def stop(self) -> None:
        """Stop fetching, drain for a bounded time, commit what is finished, leave the group."""
        self._holding = True
        await self._drain(list(self._assignments.values()))
        await self.abort()

    async def abort(self) -> None:
        """Commit what is finished and leave the group at once; others do the rest again."""
        self._stopping.set()
        self._room.set()
        if not self._thread.ident:
            return
        await self._loop.run_in_executor(None, self._thread.join, self.policy.drain_seconds + KAFKA_SECONDS)
        if self._thread.is_alive():
            log.warning("pump did not end in time; the group will notice by its session time-out")

    @property
    def assignment(self) -> frozenset[Place]:
        return frozenset(self._assignments)

    def _book(self, chunks: Sequence[Chunk]) -> None:
        try:
            self._open(chunks)
        except Exception as bug:  # noqa: BLE001 — an event loop would only log it, and later chunks would be committed over it
            self._die(PermanentKafkaError(f"booking a chunk failed: {bug!r}"))

    def _open(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            assignment = self._assignments.get(Place(chunk.topic, chunk.partition))
            if assignment is None or assignment.ledger is not chunk.ledger or assignment.revoked:
                self._drop(chunk)
                continue
            chunk.entry = chunk.ledger.open(chunk.first, chunk.last)
            assignment.open_chunks.add(chunk)
            self._waiting.append(chunk)
        self._arrived.set()

    def _drop(self, chunk: Chunk) -> None:
        chunk.state = State.DROPPED
        self._release(chunk)

    def _release(self, chunk: Chunk) -> None:
        assignment = self._assignments.get(Place(chunk.topic, chunk.partition))
        if assignment is not None:
            assignment.open_chunks.discard(chunk)
        self._released += len(chunk)
        self._released_bytes += chunk.size
        metrics.IN_FLIGHT_RECORDS.dec(len(chunk))
        metrics.IN_FLIGHT_BYTES.dec(chunk.size)
        self._room.set()
        self._progress.set()

    async def _drain(self, assignments: Sequence[Assignment]) -> None:
        """Drop what nobody has started, then wait for the rest until the policy's time is up."""
        deadline = monotonic() + self.policy.drain_seconds
        for assignment in assignments:
            assignment.revoked = True
            for chunk in [c for c in assignment.open_chunks if c.state is State.WAITING]:
                self._drop(chunk)
        while busy := sum(len(a.open_chunks) for a in assignments):
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), max(0.0, deadline - monotonic()))
            except TimeoutError:
                log.warning("drain time is up; other members will do these chunks again", chunks=busy)
                return

    def _abandon(self, assignment: Assignment) -> None:
        """Give the credit of unfinished chunks back; what finishes later changes only a closed ledger."""
        for chunk in list(assignment.open_chunks):
            self._drop(chunk)

    async def _add(self, places: Sequence[Place]) -> None:
        for place in places:
            self._assignments[place] = Assignment(place)
        log.info("partitions assigned", new=_listed(places), all=_listed(self._assignments))
        await self._on_assignment(self.assignment)

    async def _remove(self, places: Sequence[Place], how: str) -> None:
        for place in places:
            if (gone := self._assignments.get(place)) is not None:
                self._abandon(gone)
                del self._assignments[place]
        log.info("partitions gone", how=how, gone=_listed(places), all=_listed(self._assignments))
        await self._on_assignment(self.assignment)

    # -------------------------------------------------------------------------------------------- on the pump thread

    def _pump(self) -> None:
        try:
            while not self._stopping.is_set():
                self._pump_once()
        except (KafkaException, KafkaError) as error:
            self._die(error if isinstance(error, KafkaError) else kafka_error(error, DOING))
        except Exception as error:  # noqa: BLE001 — a bug must end the process, not only this thread
            self._die(PermanentKafkaError(f"the Kafka pump failed: {error!r}"))
        finally:
            self._leave()

    def _pump_once(self) -> None:
        self.turned_at = monotonic()
        if (limit := self._credit()) == 0:
            self._wait_for_room()
            messages = self._consumer.consume(1, 0) if self._paused else []
        else:
            self._resume()
            messages = self._consumer.consume(limit, POLL_SECONDS)
        if messages:
            self._hand_over(messages)
        if monotonic() >= self._next_commit:
            self._commit()

    def _credit(self) -> int:
        """Records that may be taken now: bounded by count, and by bytes at the size records had lately."""
        records = self.policy.in_flight_records - (self._taken - self._released)
        room = self.policy.in_flight_bytes - (self._taken_bytes - self._released_bytes)
        if records <= 0 or room <= 0 or self._holding:
            return 0
        return min(self.policy.chunk_records, records, room // self._record_bytes + 1)

    def _wait_for_room(self) -> None:
        """Stay in the group with nothing taken: a paused consumer polls, serves rebalances and gets no records."""
        self._room.clear()
        if self._credit() > 0 or self._room.wait(POLL_SECONDS if self._paused else PAUSE_AFTER_SECONDS):
            return
        # Partitions assigned during the stall come unpaused: pause the whole assignment each time.
        self._consumer.pause(self._consumer.assignment())
        self._paused = True

    def _resume(self) -> None:
        if self._paused:
            self._consumer.resume(self._consumer.assignment())
            self._paused = False

    def _hand_over(self, messages: list[Message]) -> None:
        if any(map(Message.error, messages)):
            messages = [m for m in messages if not self._is_error(m)]
        chunks = []
        for place, run in self._runs(messages):
            if (chunk := self._chunk(place, run)) is not None:
                chunks.append(chunk)
                self._taken += len(chunk)
                self._taken_bytes += chunk.size
                metrics.IN_FLIGHT_RECORDS.inc(len(chunk))
                metrics.IN_FLIGHT_BYTES.inc(chunk.size)
                self._record_bytes = max(1, chunk.size // len(chunk))
        if chunks:
            self._loop.call_soon_threadsafe(self._book, chunks)

    def _runs(self, messages: list[Message]) -> Iterator[tuple[Place, list[Message]]]:
        """Consecutive records of one partition; one name or number a record is looked at, and never in Python."""
        partitions: Iterable[Any] = map(Message.partition, messages)
        if len(self._topics) > 1:
            partitions = zip(map(Message.topic, messages), partitions, strict=True)
        start = 0
        for _, run in groupby(partitions):
            end = start + len(list(run))
            yield _place(messages[start]), messages[start:end]
            start = end

    def _chunk(self, place: Place, messages: list[Message]) -> Chunk | None:
        assignment = self._assignments.get(place)
        if assignment is None or assignment.revoked:  # revoked inside this very consume()
            return None
        if messages[0].offset() < assignment.next_offset:
            # Seen never; doing records twice is harmless, but a ledger cannot open offsets twice.
            log.error("partition went backwards", partition=str(place), expected=assignment.next_offset)
            messages = [m for m in messages if m.offset() >= assignment.next_offset]
            if not messages:
                return None
        assignment.next_offset = messages[-1].offset() + 1
        size = sum(map(len, messages)) + RECORD_OVERHEAD_BYTES * len(messages)
        chunk = Chunk(place.topic, place.partition, messages, size, self)
        chunk.ledger = assignment.ledger
        return chunk

    def _is_error(self, message: Message) -> bool:
        fault = message.error()
        if fault is None:
            return False
        if fault.code() == Fault._AUTO_OFFSET_RESET:  # noqa: SLF001 — the client's spelling of librdkafka's own codes
            raise self._out_of_range(_place(message))
        if fault.fatal() or not isinstance(kafka_error(fault, DOING), TransientKafkaError):
            raise kafka_error(fault, DOING)
        log.warning("fetch failed, trying on", error=str(fault))
        return True

    def _out_of_range(self, place: Place) -> KafkaError:
        """The log no longer holds the offset we must read next: skipping is loss, so the operator decides."""
        first, end = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=KAFKA_SECONDS)
        return PermanentKafkaError(
            f"{place}: expected to go on at the committed offset, but the topic holds only offsets {first} to {end - 1}; "
            "records in between are gone from Kafka. Restore them from a backup, or accept the gap by moving the "
            f"group's offset to {first} (kafka-consumer-groups --reset-offsets) and start again"
        )

    # ------------------------------------------------------------------------------------------------------- commits

    def _commit(self) -> None:
        self._next_commit = monotonic() + self.policy.commit_seconds
        assignments = list(self._assignments.values())
        if offsets := self._committable(assignments):
            self._consumer.commit(offsets=offsets, asynchronous=True)
        for topic in self._topics:
            lag = sum(self._lag(a) for a in assignments if a.place.topic == topic)
            metrics.COMMIT_LAG.labels(topic).set(lag)

    def _lag(self, assignment: Assignment) -> int:
        """Records up to the end, as far as the fetches have told where that is, that are not done with."""
        bounds: tuple[int, int] = self._consumer.get_watermark_offsets(TopicPartition(*assignment.place), cached=True)
        first, end = bounds
        done = assignment.ledger.finished_to
        return max(0, end - (done if done is not None else max(assignment.start, first, 0)))

    def _committable(self, assignments: Iterable[Assignment]) -> list[TopicPartition]:
        return [TopicPartition(*a.place, offset) for a in assignments if (offset := a.ledger.committable()) is not None]

    def _commit_answered(self, fault: Fault | None, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            failure = fault or partition.error
            if failure is not None:
                metrics.COMMIT_FAILURES.inc()
                error = kafka_error(failure, "committing offsets")
                if not isinstance(error, TransientKafkaError):  # access taken away, say: it would never commit again
                    self._die(error)
                    return
                log.warning("commit refused, trying again at the next interval", error=str(error))
            elif (assignment := self._assignments.get(Place(partition.topic, partition.partition))) is not None:
                metrics.COMMITS.inc()
                assignment.ledger.committed(partition.offset)

    def _commit_and_wait(self, assignments: Iterable[Assignment]) -> None:
        if not (offsets := self._committable(assignments)):
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            metrics.COMMIT_FAILURES.inc()
            log.warning("last commit before giving partitions up failed; the next owner repeats", error=str(error))

    # ----------------------------------------------------------------------------------------------------- rebalance

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.outside_since = None
        if not partitions:
            return
        starts = self._start_offsets(partitions)
        self._on_loop(self._add([Place(p.topic, p.partition) for p in partitions]))
        for start in starts:
            self._assignments[Place(start.topic, start.partition)].start = start.offset
        consumer.incremental_assign(starts)

    def _start_offsets(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """The committed offset, or the beginning where the group never committed: a new group reads everything."""
        return [
            TopicPartition(p.topic, p.partition, OFFSET_BEGINNING if p.offset == OFFSET_INVALID else p.offset)
            for p in self._ask_committed(partitions)
        ]

    def _ask_committed(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Kafka's answer, asked for again while the coordinator moves: guessing an offset would lose records."""
        deadline = monotonic() + KAFKA_SECONDS
        while True:
            try:
                answer: list[TopicPartition] = self._consumer.committed(partitions, timeout=KAFKA_SECONDS)
            except KafkaException as error:
                fault = error.args[0]
            else:
                if (fault := next((p.error for p in answer if p.error is not None), None)) is None:
                    return answer
            if monotonic() > deadline or not isinstance(kafka_error(fault, DOING), TransientKafkaError):
                raise kafka_error(fault, DOING)
            log.warning("committed offsets not known yet, asking again", error=str(fault))

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = [Place(p.topic, p.partition) for p in partitions]
        leaving = [a for p in places if (a := self._assignments.get(p)) is not None]
        if not leaving:
            return
        if not self._stopping.is_set():  # else it has been drained, or must not be
            self._on_loop(self._drain(leaving))
        self._commit_and_wait(leaving)
        self._on_loop(self._remove(places, "revoked"))
        consumer.incremental_unassign(partitions)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Another member may own them already: nothing of theirs is committed any more."""
        self.outside_since = monotonic()
        self._on_loop(self._remove([Place(p.topic, p.partition) for p in partitions], "lost"))
        consumer.incremental_unassign(partitions)

    def _on_loop(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(self.policy.drain_seconds + KAFKA_SECONDS)

    # --------------------------------------------------------------------------------------------------- start, end

    def _refuse_unknown(self, topics: Sequence[str]) -> None:
        try:
            known = self._consumer.list_topics(timeout=KAFKA_SECONDS).topics
        except KafkaException as error:
            raise kafka_error(error, DOING) from error
        if missing := [t for t in topics if t not in known]:
            raise PermanentKafkaError(
                f"topic {', '.join(missing)}: expected it to exist, found none; create it with `eventstore topics apply`"
            )

    def _client_error(self, fault: Fault) -> None:
        if fault.fatal():
            self._die(kafka_error(fault, DOING))
        else:
            log.warning("Kafka client", error=str(fault))

    def _die(self, error: KafkaError) -> None:
        self._stopping.set()
        self._loop.call_soon_threadsafe(self._on_fatal, error)

    def _leave(self) -> None:
        self._commit_and_wait(list(self._assignments.values()))
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            log.warning("leaving the group failed; it will notice by its session time-out", error=str(error))


def _place(message: Message) -> Place:
    return Place(message.topic(), message.partition())


def _listed(places: Iterable[Place]) -> list[str]:
    return [str(place) for place in sorted(places)]
