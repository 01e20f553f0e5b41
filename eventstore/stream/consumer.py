"""A member of a consumer group that hands out chunks and commits the finished prefix of each partition.

Two threads share the work: the **pump** (`eventstore.stream.pump`) makes every call into the Kafka client, and the **event
loop**, here, owns chunks and ledgers. What belongs to whom meanwhile is kept by `eventstore.stream.assignment`.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

import structlog

from eventstore import metrics
from eventstore.errors import KafkaError, PermanentKafkaError
from eventstore.stream.assignment import Assignments, ConsumerPolicy, Place
from eventstore.stream.chunk import Chunk
from eventstore.stream.pump import LoopSide, Pump

__all__ = ["AssignmentListener", "ChunkConsumer", "ConsumerPolicy", "Place"]

log = structlog.stdlib.get_logger(__name__)

AssignmentListener = Callable[[frozenset[Place]], Coroutine[Any, Any, None]]


async def unheeded(_: object) -> None:
    """The `AssignmentListener` of whoever need not know which partitions he has."""


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
        self._arrived = asyncio.Event()
        self._progress = asyncio.Event()
        self._assignments = Assignments(policy, self._released)
        side = LoopSide(
            book=self._book, drain=self._drain, add=self._add, remove=self._remove, drained=on_drained, died=on_fatal
        )
        self._pump = Pump(config, policy, self._assignments, side)

    def start(self, topics: Sequence[str]) -> None:
        """Join the group.

        Raises:
            PermanentKafkaError: a topic does not exist.
            TransientKafkaError: no broker answers.
        """
        self._pump.start(topics)

    async def next(self) -> Chunk:
        """The next chunk whose partition is still ours."""
        while (chunk := self._assignments.next_waiting()) is None:
            self._arrived.clear()
            await self._arrived.wait()
        return chunk

    async def stop(self) -> None:
        """Stop fetching, drain for a bounded time, commit what is finished, leave the group."""
        self._pump.holding = True
        await self._drain(self.assignment)
        await self.abort()

    async def abort(self) -> None:
        """Commit what is finished and leave the group at once; others do the rest again."""
        if not await asyncio.get_running_loop().run_in_executor(None, self._pump.end):
            log.warning("pump did not end in time; the group will notice by its session time-out")

    @property
    def assignment(self) -> frozenset[Place]:
        return self._assignments.places

    @property
    def stalled(self) -> bool:
        """Whether there has been no room for more records for so long that fetching is paused."""
        return self._pump.paused

    @property
    def turned_at(self) -> float | None:
        """When the pump last began a turn, in monotonic seconds; None before its first."""
        return self._pump.turned_at

    @property
    def outside_since(self) -> float | None:
        """Since when we have no assignment of the group's, in monotonic seconds; None while we have one."""
        return self._pump.outside_since

    @property
    def silent_since(self) -> float | None:
        """Since when records have come and none was handed to us, in monotonic seconds; None while all is well."""
        return self._pump.silence.since

    def _book(self, chunks: Sequence[Chunk]) -> None:
        try:
            self._assignments.book(chunks)
        except Exception as bug:  # noqa: BLE001 — an event loop would only log it
            self._assignments.withhold(self._assignments.places)  # later chunks would be committed over the missing one
            self._pump.die(PermanentKafkaError(f"booking a chunk failed: {bug!r}"))
        self._arrived.set()

    def _released(self, chunk: Chunk) -> None:
        metrics.IN_FLIGHT_RECORDS.dec(len(chunk))
        metrics.IN_FLIGHT_BYTES.dec(chunk.size)
        self._pump.go_on()
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


def _listed(places: Iterable[Place]) -> list[str]:
    return [str(place) for place in sorted(places)]
