"""The thread that makes every call into confluent-kafka: it fetches, commits, and answers the group's rebalances.

From 2.16 on the client's calls are serialised behind a gate that a loop of `consume()` starves, so a `commit()` from
elsewhere can wait for seconds: they are all made here. What concerns chunks and ledgers is done on the event loop, which the
pump posts to; on a revocation it waits, for a bounded time, until the loop has drained what is being worked on.
"""

import asyncio
import threading
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from eventstore.stream.fetchers import FetcherWaking
from eventstore.stream.silence import Silence

log = structlog.stdlib.get_logger(__name__)

POLL_SECONDS: Final = 0.02
"""Longest linger of a fetch that is not full, and so the longest wait of a commit or a stop for the pump."""
LEAVE_SECONDS: Final = 10.0
"""Until a pump that does not end, or, beyond the drain time, an event loop that does not answer, is left to itself."""
DOING: Final = "consuming"
PAUSE_AFTER_SECONDS: Final = 0.5
"""A stall longer than this pauses the partitions: shorter ones are not worth losing the prefetched records."""
WAKING_SECONDS: Final = 1.5
"""For so long after partitions may have been paused and resumed are the client's fetchers woken: they sleep up to a second."""

Step = Coroutine[Any, Any, None]


@dataclass(frozen=True, slots=True)
class LoopSide:
    """What the pump has done on the event loop, in the order in which it asks for it."""

    book: Callable[[Sequence[Chunk]], None]
    drain: Callable[[Collection[Place]], Step]
    add: Callable[[Mapping[Place, int]], Step]
    remove: Callable[[Collection[Place], str], Step]
    """The places, and how they were taken away."""
    drained: Callable[[], None]
    """The group (all its members together) has committed up to the policy's ends."""
    died: Callable[[KafkaError], None]


class Pump:
    """Joins the group with `start`; leaves it, with what is finished committed, after `end`."""

    def __init__(
        self, config: Mapping[str, Any], policy: ConsumerPolicy, assignments: Assignments, loop_side: LoopSide
    ) -> None:
        self._policy = policy
        self._assignments = assignments
        self._side = loop_side
        self._loop = asyncio.get_running_loop()
        self._room = threading.Event()
        self._stopping = threading.Event()
        self._topics: tuple[str, ...] = ()
        self._drained = False
        self._waking = FetcherWaking.for_client(config)
        self._waking_until = 0.0
        self._next_commit = 0.0
        self.holding = False
        """Nothing more is taken."""
        self.paused = False
        """There was no room for so long that Kafka's client fetches no more either."""
        self.turned_at: float | None = None
        """When the pump last began a turn; None before its first. Monotonic seconds, as below."""
        self.outside_since: float | None = None
        """Since when we have no assignment of the group's; None while we have one, be it of no partitions (others are enough).

        Under KIP-848 nobody tells a member that it gets none, so there only a lost assignment counts.
        """
        self.silence = Silence()
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
        self._thread = threading.Thread(target=self._run, name="kafka-pump", daemon=True)

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

    def go_on(self) -> None:
        """There is room again."""
        self._room.set()

    def end(self) -> bool:
        """Commit what is finished and leave the group. Blocks; False if that took too long."""
        self._stopping.set()
        self._room.set()
        if self._thread.ident:
            self._thread.join(LEAVE_SECONDS)
        return not self._thread.is_alive()

    # ---------------------------------------------------------------------------------------------- on its own thread

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._turn()
        except (KafkaException, KafkaError) as error:
            self.die(error if isinstance(error, KafkaError) else kafka_error(error, DOING))
        except Exception as error:  # noqa: BLE001 — a bug must end the process, not only this thread
            self.die(PermanentKafkaError(f"the Kafka pump failed: {error!r}"))
        finally:
            self._leave()

    def _turn(self) -> None:
        self.turned_at = monotonic()
        if (limit := self._credit()) == 0:
            self._wait_for_room()
            messages = self._consumer.consume(1, 0) if self.paused else []
        else:
            self._resume()
            messages = self._consumer.consume(limit, POLL_SECONDS)
        if messages:
            self._hand_over(messages)
        now = monotonic()
        if now < self._waking_until:
            self._waking.wake(self._consumer)
        if now >= self._next_commit:
            self._commit()
            self._listen()

    def _credit(self) -> int:
        return 0 if self.holding else self._assignments.credit()

    def _wait_for_room(self) -> None:
        """Stay in the group with nothing taken: a paused consumer polls, serves rebalances and gets no records."""
        self._room.clear()
        if self._credit() > 0 or self._room.wait(POLL_SECONDS if self.paused else PAUSE_AFTER_SECONDS):
            return
        # Partitions assigned during the stall come unpaused: pause the whole assignment each time.
        self._consumer.pause(self._consumer.assignment())
        self.paused = True

    def _resume(self) -> None:
        if self.paused:
            self._consumer.resume([TopicPartition(*place) for place in self._assignments.unended()])
            self.paused = False
            self._waking_until = monotonic() + WAKING_SECONDS

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
            self._loop.call_soon_threadsafe(self._side.book, chunks)
        if self._policy.ends is not None:
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
        self._next_commit = monotonic() + self._policy.commit_seconds
        if offsets := self._assignments.committable():
            self._consumer.commit(offsets=_partitions(offsets), asynchronous=True)
        for topic in self._topics:
            places = [place for place in self._assignments.places if place.topic == topic]
            metrics.COMMIT_LAG.labels(topic).set(sum(map(self._lag, places)))
        if self._policy.ends is not None and not self._drained and not self._assignments.unended():
            self._look_for_the_end(self._policy.ends)

    def _listen(self) -> None:
        """Have it known when records come and none is handed to us."""
        now, waited_for = monotonic(), self._assignments.unended()
        room = self._credit() > 0 and bool(waited_for)
        self.silence.broken((self._assignments.moved, room), now)
        if room and self.silence.look_is_due(now):
            self.silence.looked(positions.ends(self._consumer, waited_for), now)

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
            self._loop.call_soon_threadsafe(self._side.drained)

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
                self.die(error)
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
        self._waking_until = monotonic() + WAKING_SECONDS
        if not partitions:
            return
        starts = positions.starts(consumer, map(_place, partitions))
        self._on_loop(self._side.add(starts))
        consumer.incremental_assign(_partitions(starts))
        # one that was paused when it was taken away is still paused when it comes back, and nothing else would resume it;
        # in the midst of a stall the next turn pauses all of them anew
        consumer.resume(_partitions(starts))
        for place, offset in starts.items():
            self._come_to(place, offset)

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        leaving = self._assignments.places.intersection(map(_place, partitions))
        if not leaving:
            return
        self._waking_until = monotonic() + WAKING_SECONDS
        if not self._stopping.is_set():  # else it has been drained, or must not be
            self._on_loop(self._side.drain(leaving))
        self._commit_and_wait(leaving)
        self._on_loop(self._side.remove(leaving, "revoked"))
        consumer.incremental_unassign(partitions)
        if self._told_of_none and not self._assignments.places:
            self.outside_since = monotonic()  # until the group says what we get instead, be it nothing

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Another member may own them already: nothing of theirs is committed any more."""
        self.outside_since = monotonic()
        self._on_loop(self._side.remove([_place(p) for p in partitions], "lost"))
        consumer.incremental_unassign(partitions)

    def _on_loop(self, step: Step) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(self._policy.drain_seconds + LEAVE_SECONDS)

    # ----------------------------------------------------------------------------------------------------------- end

    def _client_error(self, fault: Fault) -> None:
        if fault.fatal():
            self.die(kafka_error(fault, DOING))
        else:
            log.warning("Kafka client", error=str(fault))

    def die(self, error: KafkaError) -> None:
        """Come to an end because of this error, whatever thread says so; what is finished is still committed."""
        self._stopping.set()
        self._loop.call_soon_threadsafe(self._side.died, error)

    def _leave(self) -> None:
        self._commit_and_wait(self._assignments.places)
        try:
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            log.warning("leaving the group failed; it will notice by its session time-out", error=str(error))
        for topic in self._topics:  # its last figure would stand for ever
            metrics.COMMIT_LAG.remove(topic)


def _place(of: Message | TopicPartition) -> Place:
    if isinstance(of, TopicPartition):
        return Place(of.topic, of.partition)
    return Place(of.topic(), of.partition())


def _partitions(offsets: Mapping[Place, int]) -> list[TopicPartition]:
    return [TopicPartition(*place, offset) for place, offset in offsets.items()]
