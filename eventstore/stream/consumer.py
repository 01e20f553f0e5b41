"""A member of a consumer group that hands out chunks and commits the finished prefix of each partition.

Two threads share the work. The **pump** makes every call into confluent-kafka: from 2.16 on these calls are serialised
behind a gate that a loop of `consume()` starves, so a `commit()` from elsewhere can wait for seconds. The **event loop**
owns chunks and ledgers. The pump posts chunks to the loop; on a revocation it waits, for a bounded time, until the loop
has drained what is being worked on. What belongs to whom meanwhile is kept by `eventstore.stream.assignment`.
"""

import asyncio
import threading
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from time import monotonic
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka import KafkaError as Fault

from eventstore import metrics
from eventstore.errors import KafkaError, PermanentKafkaError, TransientKafkaError
from eventstore.stream import positions
from eventstore.stream.assignment import Assignments, ConsumerPolicy, Place
from eventstore.stream.chunk import Chunk
from eventstore.stream.failures import kafka_error

__all__ = ["AssignmentListener", "ChunkConsumer", "ConsumerPolicy", "Place"]

log = structlog.stdlib.get_logger(__name__)

POLL_SECONDS: Final = 0.02
"""Longest linger of a fetch that is not full, and so the longest wait of a commit or a stop for the pump."""
LEAVE_SECONDS: Final = 10.0
"""Beyond the drain time, until a pump that does not come to an end is left to itself."""
DOING: Final = "consuming"
PAUSE_AFTER_SECONDS: Final = 0.5
"""A stall longer than this pauses the partitions: shorter ones are not worth losing the prefetched records."""
WAKINGS: Final = 2
"""Turns of the pump after partitions were paused and resumed on which the client's fetchers are woken."""

AssignmentListener = Callable[[frozenset[Place]], Coroutine[Any, Any, None]]


class ChunkConsumer:
    """Hands out chunks (`next`), takes them back (`Chunk.finish`), commits, and survives rebalances.

    `on_assignment` is awaited on the loop with the whole assignment whenever it changes, before the first chunk of a new
    partition; `on_fatal` is called on the loop once, with the error that ended the pump; `on_drained` is called on the loop
    once, when the group (all its members together) has committed up to the policy's ends.
    """

    def __init__(
        self,
        config: dict[str, Any],
        policy: ConsumerPolicy,
        on_assignment: AssignmentListener,
        on_fatal: Callable[[KafkaError], None],
        on_drained: Callable[[], None] = lambda: None,
    ) -> None:
        self.policy = policy
        self._on_assignment = on_assignment
        self._on_fatal = on_fatal
        self._on_drained = on_drained
        self._drained = False
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._progress = asyncio.Event()
        self._assignments = Assignments(policy, self._released)
        self._room = threading.Event()
        self._stopping = threading.Event()
        self._topics: tuple[str, ...] = ()
        self._holding = False
        self._paused = False
        self._wakings = 0
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
                # A committed offset that the log no longer holds must stop us, not move us: see `positions`.
                "auto.offset.reset": "error",
                # where reading ends there may be no record: the end of the partition tells as well
                "enable.partition.eof": policy.ends is not None,
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
        positions.refuse_unknown(self._consumer, topics)
        self._topics = tuple(topics)
        self._consumer.subscribe(list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        self.outside_since = monotonic() if self._told_of_none else None
        self._thread.start()

    async def next(self) -> Chunk:
        """The next chunk whose partition is still ours."""
        while (chunk := self._assignments.next_waiting()) is None:
            self._arrived.clear()
            await self._arrived.wait()
        return chunk

    async def stop(self) -> None:
        """Stop fetching, drain for a bounded time, commit what is finished, leave the group."""
        self._holding = True
        await self._drain(self.assignment)
        await self.abort()

    async def abort(self) -> None:
        """Commit what is finished and leave the group at once; others do the rest again."""
        self._stopping.set()
        self._room.set()
        if not self._thread.ident:
            return
        await self._loop.run_in_executor(None, self._thread.join, self.policy.drain_seconds + LEAVE_SECONDS)
        if self._thread.is_alive():
            log.warning("pump did not end in time; the group will notice by its session time-out")

    @property
    def assignment(self) -> frozenset[Place]:
        return self._assignments.places

    def _book(self, chunks: Sequence[Chunk]) -> None:
        try:
            self._assignments.book(chunks)
        except Exception as bug:  # noqa: BLE001 — an event loop would only log it, and later chunks would be committed over it
            self._die(PermanentKafkaError(f"booking a chunk failed: {bug!r}"))
        self._arrived.set()

    def _released(self, chunk: Chunk) -> None:
        metrics.IN_FLIGHT_RECORDS.dec(len(chunk))
        metrics.IN_FLIGHT_BYTES.dec(chunk.size)
        self._room.set()
        self._progress.set()

    async def _drain(self, places: Collection[Place]) -> None:
        """Drop what nobody has started, then wait for the rest until the policy's time is up."""
        deadline = monotonic() + self.policy.drain_seconds
        self._assignments.withhold(places)
        while busy := self._assignments.open_chunks(places):
            self._progress.clear()
            try:
                await asyncio.wait_for(self._progress.wait(), max(0.0, deadline - monotonic()))
            except TimeoutError:
                log.warning("drain time is up; other members will do these chunks again", chunks=busy)
                return

    async def _add(self, starts: Mapping[Place, int]) -> None:
        self._assignments.add(starts)
        log.info("partitions assigned", new=_listed(starts), all=_listed(self.assignment))
        await self._on_assignment(self.assignment)

    async def _remove(self, places: Collection[Place], how: str) -> None:
        self._assignments.remove(places)
        log.info("partitions gone", how=how, gone=_listed(places), all=_listed(self.assignment))
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
        if self._wakings:
            self._wakings -= 1
            positions.wake_fetchers(self._consumer, self._assignments.unended())
        if monotonic() >= self._next_commit:
            self._commit()

    def _credit(self) -> int:
        return 0 if self._holding else self._assignments.credit()

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
            self._consumer.resume([TopicPartition(*place) for place in self._assignments.unended()])
            self._paused = False
            self._wakings = WAKINGS

    def _hand_over(self, messages: list[Message]) -> None:
        notices: list[Message] = []
        if any(map(Message.error, messages)):
            notices = [m for m in messages if m.error() is not None]
            messages = [m for m in messages if m.error() is None]
        runs = list(self._runs(messages))
        chunks = [chunk for place, run in runs if (chunk := self._assignments.take(place, run)) is not None]
        if chunks:
            metrics.IN_FLIGHT_RECORDS.inc(sum(map(len, chunks)))
            metrics.IN_FLIGHT_BYTES.inc(sum(chunk.size for chunk in chunks))
            self._loop.call_soon_threadsafe(self._book, chunks)
        if self.policy.ends is not None:
            for place, run in runs:
                self._come_to(place, run[-1].offset() + 1)
        for notice in notices:
            self._hear(notice)

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

    def _hear(self, notice: Message) -> None:
        fault = notice.error()
        if fault is None:
            return
        code = fault.code()
        if code == Fault._PARTITION_EOF:  # noqa: SLF001 — the client's spelling of librdkafka's own codes
            self._come_to(_place(notice), notice.offset())
        elif code == Fault._AUTO_OFFSET_RESET:  # noqa: SLF001
            raise positions.out_of_range(self._consumer, _place(notice))
        elif not isinstance(error := kafka_error(fault, DOING), TransientKafkaError):
            raise error
        else:
            log.warning("fetch failed, trying on", error=str(fault))

    def _come_to(self, place: Place, offset: int) -> None:
        """Reading has come to this offset: if that is the partition's end, no more is fetched of it."""
        if (ended := self._assignments.arrived(place, offset)) is not None:
            self._consumer.pause([TopicPartition(*place)])
            self._loop.call_soon_threadsafe(ended.close)

    # ------------------------------------------------------------------------------------------------------- commits

    def _commit(self) -> None:
        self._next_commit = monotonic() + self.policy.commit_seconds
        if offsets := self._assignments.committable():
            self._consumer.commit(offsets=_partitions(offsets), asynchronous=True)
        for topic in self._topics:
            places = [place for place in self.assignment if place.topic == topic]
            metrics.COMMIT_LAG.labels(topic).set(sum(map(self._lag, places)))
        if self.policy.ends is not None and not self._drained and not self._assignments.unended():
            self._look_for_the_end(self.policy.ends)

    def _lag(self, place: Place) -> int:
        """Records up to the end, as far as the fetches have told where that is, that are not done with."""
        bounds: tuple[int, int] = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
        first, end = bounds
        return max(0, end - max(self._assignments.done_to(place), first, 0))

    def _look_for_the_end(self, ends: Mapping[Place, int]) -> None:
        try:
            committed = positions.committed(self._consumer, ends)
        except TransientKafkaError as error:
            log.warning("not known yet whether the group has come to the end, asking again", error=str(error))
            return
        if all(committed.get(place, 0) >= end for place, end in ends.items()):
            self._drained = True
            self._loop.call_soon_threadsafe(self._on_drained)

    def _commit_answered(self, fault: Fault | None, partitions: list[TopicPartition]) -> None:
        refusals: dict[int, Fault] = {}
        for partition in partitions:
            refusal = fault or partition.error
            self._assignments.answered(_place(partition), partition.offset, committed=refusal is None)
            if refusal is None:
                metrics.COMMITS.inc()
            else:
                metrics.COMMIT_FAILURES.inc()
                refusals[refusal.code()] = refusal
        for refusal in refusals.values():  # mostly one, that of a rebalance under way
            error = kafka_error(refusal, "committing offsets")
            if not isinstance(error, TransientKafkaError):  # access taken away, say: it would never commit again
                self._die(error)
                return
            log.warning("commit refused, trying again at the next interval", error=str(error))

    def _commit_and_wait(self, places: Collection[Place]) -> None:
        if not (offsets := self._assignments.committable(places)):
            return
        try:
            self._consumer.commit(offsets=_partitions(offsets), asynchronous=False)
        except KafkaException as error:
            metrics.COMMIT_FAILURES.inc()
            log.warning("last commit before giving partitions up failed; the next owner repeats", error=str(error))

    # ----------------------------------------------------------------------------------------------------- rebalance

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.outside_since = None
        self._wakings = WAKINGS
        if not partitions:
            return
        starts = positions.starts(consumer, map(_place, partitions))
        self._on_loop(self._add(starts))
        consumer.incremental_assign(_partitions(starts))
        for place, offset in starts.items():
            self._come_to(place, offset)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        leaving = self.assignment.intersection(map(_place, partitions))
        if not leaving:
            return
        self._wakings = WAKINGS
        if not self._stopping.is_set():  # else it has been drained, or must not be
            self._on_loop(self._drain(leaving))
        self._commit_and_wait(leaving)
        self._on_loop(self._remove(leaving, "revoked"))
        consumer.incremental_unassign(partitions)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Another member may own them already: nothing of theirs is committed any more."""
        self.outside_since = monotonic()
        self._on_loop(self._remove([_place(p) for p in partitions], "lost"))
        consumer.incremental_unassign(partitions)

    def _on_loop(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(self.policy.drain_seconds + LEAVE_SECONDS)

    # ----------------------------------------------------------------------------------------------------------- end

    def _client_error(self, fault: Fault) -> None:
        if fault.fatal():
            self._die(kafka_error(fault, DOING))
        else:
            log.warning("Kafka client", error=str(fault))

    def _die(self, error: KafkaError) -> None:
        self._stopping.set()
        self._loop.call_soon_threadsafe(self._on_fatal, error)

    def _leave(self) -> None:
        self._commit_and_wait(self.assignment)
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            log.warning("leaving the group failed; it will notice by its session time-out", error=str(error))


def _place(of: Message | TopicPartition) -> Place:
    if isinstance(of, TopicPartition):
        return Place(of.topic, of.partition)
    return Place(of.topic(), of.partition())


def _partitions(offsets: Mapping[Place, int]) -> list[TopicPartition]:
    return [TopicPartition(*place, offset) for place, offset in offsets.items()]


def _listed(places: Iterable[Place]) -> list[str]:
    return [str(place) for place in sorted(places)]
