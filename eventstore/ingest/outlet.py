"""Where one cluster's rows are stored: a writer, and a circuit that says when to stop waiting for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Final, Protocol

import structlog

from eventstore import metrics
from eventstore.errors import CircuitOpenError, EventstoreError, PermanentStoreError, StoreError, TransientStoreError
from eventstore.events.cells import Batch, nothing_beside
from eventstore.ingest.circuit import Circuit, State, Wanted
from eventstore.ingest.retry import RetryPolicy, Unstored, write_until_stored
from eventstore.store.writer import EventWriter

log = structlog.stdlib.get_logger(__name__)

PROBED_PARTITIONS: Final = 8
"""Of those that were not stored: with two of six nodes down four fifths of all partitions work as ever."""


class Outlet(Protocol):
    """What the pipeline asks of a cluster."""

    async def store(self, batches: Sequence[Batch]) -> None:
        """Returns when every batch is acknowledged.

        Raises:
            CircuitOpenError: nobody waits for this cluster now; some of the batches may have been stored.
            StoreError: the cluster refuses a write, or, without a circuit, went on failing beyond the retry policy's
                deadline.
        """
        ...


class Direct:
    """An outlet without a circuit: waits for its cluster up to the retry policy's deadline."""

    def __init__(self, writer: EventWriter, retry: RetryPolicy) -> None:
        self._writer = writer
        self._retry = retry

    async def store(self, batches: Sequence[Batch]) -> None:
        await write_until_stored(self._writer, Unstored(batches), self._retry, monotonic)


class GuardedOutlet:
    """An outlet that stops waiting when its circuit opens.

    `watch` must be called several times a second, and `make_way` where chunks hold other clusters' rows as well.
    """

    def __init__(
        self,
        cluster: str,
        connect: Callable[[], Awaitable[EventWriter]],
        circuit: Circuit,
        retry: RetryPolicy,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.cluster = cluster
        self.circuit = circuit
        self._connect = connect
        self._retry = retry
        self._clock = clock
        self._writer: EventWriter | None = None
        self._acknowledged = 0
        self._connected = asyncio.Event()
        self._trouble: StoreError | None = None
        """Why it is not connected."""
        self._waiting: dict[asyncio.Timeout, Unstored] = {}
        """The writes under way, oldest first: they end when the circuit opens."""
        self._sample: list[Batch] = []
        """What the next probe writes."""
        self._connecting: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._show()

    @property
    def idle(self) -> bool:
        """Whether nothing is being written."""
        return not self.circuit.writes

    async def connect(self) -> None:
        """Connect. A cluster that is away opens the circuit, and connecting goes on in the background.

        Raises:
            EventstoreError: the cluster is there, and cannot be used as it is.
        """
        try:
            self._use(await self._connect())
        except TransientStoreError as error:
            self._trouble = error
            self._connecting = asyncio.create_task(self._keep_connecting())
            if self.circuit.trip(self._clock(), str(error)):
                self._opened()

    async def store(self, batches: Sequence[Batch]) -> None:
        if self.circuit.state is not State.CLOSED:
            raise self._diverted(batches)
        write, unstored = self.circuit.begin(self._clock()), Unstored(batches)
        try:
            async with self._unless_opened(unstored):
                writer = await self._when_connected()
                await write_until_stored(
                    writer, unstored, self._retry, self._clock, refused=self._refused, may_end=self._may_end
                )
        except TimeoutError:
            raise self._diverted(unstored.batches) from None
        except TransientStoreError as error:  # the retry deadline, before the circuit's patience was at its end
            if self.circuit.trip(self._clock(), str(error)):
                self._opened()
            raise self._diverted(unstored.batches) from error
        finally:
            self.circuit.end(write, self._clock())

    def want(self, wanted: Wanted) -> None:
        """Do as an operator wants."""
        if wanted is not self.circuit.wanted:
            log.warning("circuit set by an operator", cluster=self.cluster, wanted=wanted.value)
            self.circuit.want(wanted, self._clock())
            self._changed()

    def watch(self) -> None:
        """Open the circuit if it is time, or begin a probe in the background. Raises what nobody expected of those."""
        for task in (self._probe, self._connecting):
            if task is not None and task.done():
                task.result()
        now = self._clock()
        self._listen(now)
        if self.circuit.check(now):
            self._opened()
        elif self.circuit.probe_is_due(now) and (self._probe is None or self._probe.done()):
            self.circuit.probe()
            self._show()
            self._probe = asyncio.create_task(self._try())

    def make_way(self) -> None:
        """Open the circuit if other clusters have waited for too long behind this one's slow writes."""
        if self.circuit.make_way(self._clock()):
            self._opened()

    async def close(self) -> None:
        tasks = [task for task in (self._probe, self._connecting) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._writer is not None:
            await self._writer.close()

    @asynccontextmanager
    async def _unless_opened(self, unstored: Unstored) -> AsyncIterator[None]:
        """Ends the block with a TimeoutError when the circuit opens."""
        async with asyncio.timeout(None) as scope:
            self._waiting[scope] = unstored
            try:
                yield
            finally:
                self._waiting.pop(scope, None)

    def _may_end(self) -> bool:
        return self.circuit.wanted is not Wanted.CLOSED

    def _refused(self, why: str) -> None:
        self.circuit.refused(self._clock(), why)

    def _listen(self, now: float) -> None:
        """Tell the circuit if anything has been acknowledged since the last time."""
        acknowledged = self._writer.acknowledged if self._writer is not None else 0
        if acknowledged > self._acknowledged:
            self.circuit.heard(now)
        self._acknowledged = acknowledged

    def _diverted(self, batches: Sequence[Batch]) -> CircuitOpenError:
        if not self._sample:
            self._sample = _probes(batches)
        return CircuitOpenError(f"cluster {self.cluster}: its circuit is open: {self.circuit.why}")

    # ----------------------------------------------------------------------------------------- connecting and probing

    async def _when_connected(self) -> EventWriter:
        while self._writer is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._connected.wait(), self._retry.deadline_seconds)
            if self._writer is None and (self._may_end() or not isinstance(self._trouble, TransientStoreError)):
                raise self._unconnected()
        return self._writer

    async def _keep_connecting(self) -> None:
        """One attempt after the other, whatever the circuit's state is."""
        pause = self.circuit.policy.first_pause
        while self._writer is None:
            await asyncio.sleep(pause)
            pause = min(2 * pause, self.circuit.policy.longest_pause)
            try:
                self._use(await self._connect())
            except EventstoreError as error:
                self._trouble = error if isinstance(error, StoreError) else PermanentStoreError(str(error))
                # what will not pass by itself needs a person; meanwhile the records wait in Kafka
                tell = log.info if isinstance(error, TransientStoreError) else log.error
                tell("cluster not connected, trying again", cluster=self.cluster, seconds=pause, error=str(error))

    def _use(self, writer: EventWriter) -> None:
        self._writer, self._trouble = writer, None
        self._connected.set()

    def _unconnected(self) -> StoreError:
        return self._trouble or TransientStoreError(f"cluster {self.cluster}: not connected yet")

    async def _try(self) -> None:
        try:
            await self._knock()
        except EventstoreError as error:
            self.circuit.failed(self._clock(), str(error))
            log.info("circuit stays open", cluster=self.cluster, error=str(error))
        else:
            self.circuit.passed(self._clock())
        self._changed()

    async def _knock(self) -> None:
        """Write to partitions that could not be written to when the circuit opened: that is what must work again.

        Others may work all the while, and a read may go through where a write does not (a full disk, say). Without such
        a partition, a connection has to do.
        """
        if self._writer is None:
            raise self._unconnected()
        if self._sample:
            for _, error in await self._writer.write(self._sample):
                raise error

    # -------------------------------------------------------------------------------------------------------- changes

    def _opened(self) -> None:
        log.warning("circuit open: records of this cluster are diverted", cluster=self.cluster, why=self.circuit.why)
        if (oldest := next(iter(self._waiting.values()), None)) is not None:  # what it has tried longest has not worked
            self._sample = _probes(oldest.batches)
        self._changed()

    def _changed(self) -> None:
        self._show()
        if self.circuit.state is State.CLOSED:
            log.info("circuit closed", cluster=self.cluster)
            self._sample = []
            return
        now = asyncio.get_running_loop().time()
        while self._waiting:
            scope, _ = self._waiting.popitem()
            scope.reschedule(now)

    def _show(self) -> None:
        metrics.CIRCUIT_STATE.labels(self.cluster).set(self.circuit.state.value)


def _probes(batches: Sequence[Batch]) -> list[Batch]:
    """Writes to a few of their partitions, far apart in the sequence.

    Harmless whatever has become of the rows: while a circuit is open they may expire, or their user be erased.
    """
    step = -(-len(batches) // PROBED_PARTITIONS)
    return [[nothing_beside(batch[0])] for batch in batches[::step]]
