"""Diverted records are brought home when their cluster's circuit has closed: beside live traffic, at a bounded rate.

Order does not matter: a row's identity and write time come from the event. So a drain is a consumer group of its own that
comes and goes, and runs the same pipeline.

A retry topic that cannot be read, because records are gone from it, say, or whose records are rejected one after the other,
suspends its own drain and nothing else: live events go on, and a person is told how to mend it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from time import monotonic
from typing import Final, Protocol

import structlog

from eventstore import metrics
from eventstore.errors import CircuitOpenError, KafkaError, PermanentKafkaError, RefusedError, TransientKafkaError
from eventstore.ingest.circuit import State
from eventstore.ingest.pipeline import Diverts, Pipeline
from eventstore.ingest.rate import RateLimit
from eventstore.stream.chunk import Chunk, Record

log = structlog.stdlib.get_logger(__name__)

GLANCE_SECONDS: Final = 0.5
"""How soon a circuit that has closed is noticed."""


@dataclass(frozen=True, slots=True)
class DrainPolicy:
    records_per_second: float = 5_000.0
    """Of each cluster, on each worker."""
    look_seconds: float = 5.0
    """Between two looks at what waits."""
    idle_seconds: float = 10.0
    """A drain that got nothing for so long ends. Joining its group takes some of that."""
    suspended_seconds: float = 60.0
    """A drain that Kafka has refused its records is tried again after so long."""


class SourceError(Exception):
    """Kafka will not hand out the records of one drain: no matter of the other drains, nor of live traffic."""


class Source(Protocol):
    """Hands out the chunks of a retry topic (`ChunkConsumer` does)."""

    async def next(self) -> Chunk: ...

    async def abort(self) -> None:
        """Commit what is finished and leave the group."""
        ...


Join = Callable[[str, Callable[[KafkaError], None]], Awaitable[Source]]
"""Joins the group that drains a cluster's retry topic; the callback hears, once, what ends the source."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The diverts of a drain: to other clusters' topics, never back to where its records come from."""

    cluster: str
    diverts: Diverts

    async def send(self, cluster: str, records: Sequence[Record]) -> None:
        if cluster == self.cluster:
            raise CircuitOpenError(f"cluster {cluster}: its circuit has opened again; what waits stays where it is")
        await self.diverts.send(cluster, records)


class Drains:
    """Starts a drain for each cluster whose circuit is closed and whose retry topic holds anything."""

    def __init__(
        self,
        states: Callable[[], Mapping[str, State]],
        backlogs: Callable[[], Awaitable[Mapping[str, int | KafkaError]]],
        join: Join,
        pipeline: Pipeline,
        policy: DrainPolicy,
    ) -> None:
        self._states = states
        self._backlogs = backlogs
        self._join = join
        self._pipeline = pipeline
        self._policy = policy
        self._running: dict[str, asyncio.Task[None]] = {}
        self._suspended: dict[str, float] = {}
        """Until when each of these is not tried; it stays here until it has gone well."""

    async def keep_draining(self) -> None:
        """For ever: look every few seconds, and soon after a circuit has closed.

        Raises:
            EventstoreError: what a drain's pipeline cannot handle, or Kafka will not tell of any retry topic.
        """
        closed: set[str] = set()
        next_look = 0.0
        try:
            while True:
                before, closed = closed, {name for name, state in self._states().items() if state is State.CLOSED}
                if closed - before or monotonic() >= next_look:
                    await self._look()
                    next_look = monotonic() + self._policy.look_seconds
                self._forget_ended()
                await asyncio.sleep(GLANCE_SECONDS)
        finally:
            for drain in self._running.values():
                drain.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _look(self) -> None:
        try:
            waiting = await self._backlogs()
        except TransientKafkaError as error:
            log.warning("retry topics not looked at, trying again", error=str(error))
            return
        for cluster, found in waiting.items():
            match found:
                case TransientKafkaError():
                    log.warning("retry topic not looked at, trying again", cluster=cluster, error=str(found))
                case KafkaError():
                    self._suspend(cluster, str(found))
                case 0:
                    self._resume(cluster)
                case _ if self._may_start(cluster):
                    log.info("draining", cluster=cluster, records=found)
                    self._running[cluster] = asyncio.create_task(self._drain(cluster))

    def _may_start(self, cluster: str) -> bool:
        return (
            cluster not in self._running
            # records of a cluster that left the registry go where their tenants have gone
            and self._states().get(cluster, State.CLOSED) is State.CLOSED
            and monotonic() >= self._suspended.get(cluster, 0.0)
        )

    def _suspend(self, cluster: str, why: str, seconds: float | None = None) -> None:
        metrics.DRAIN_SUSPENDED.labels(cluster).set(1)
        if monotonic() >= self._suspended.get(cluster, 0.0):
            self._suspended[cluster] = monotonic() + (self._policy.suspended_seconds if seconds is None else seconds)
            log.error("drain suspended: its records wait until this is mended", cluster=cluster, error=why)

    def _resume(self, cluster: str) -> None:
        if self._suspended.pop(cluster, None) is not None:
            metrics.DRAIN_SUSPENDED.labels(cluster).set(0)
            log.info("drain is mended", cluster=cluster)

    def _forget_ended(self) -> None:
        for cluster, drain in list(self._running.items()):
            if drain.done():
                del self._running[cluster]
                drain.result()

    async def _drain(self, cluster: str) -> None:
        try:
            records = await self._until_idle(cluster)
        except (CircuitOpenError, TransientKafkaError) as error:
            log.warning("drain given up for now", cluster=cluster, error=str(error))
        except SourceError as error:
            self._suspend(cluster, str(error))
        except RefusedError as error:  # trying again would send more and more of them to the dead letters
            self._suspend(cluster, str(error), inf)
        else:
            self._resume(cluster)
            log.info("drained", cluster=cluster, records=records)

    async def _until_idle(self, cluster: str) -> int:
        """Drain until nothing has come for a while; gives how many records were done with."""
        failed: asyncio.Future[KafkaError] = asyncio.get_running_loop().create_future()
        # a window of its own: what waits here tells nothing of what producers send now
        pipeline = replace(self._pipeline, freshness=None, rejects=self._pipeline.rejects.anew())
        if pipeline.diverts is not None:
            pipeline = replace(pipeline, diverts=Elsewhere(cluster, pipeline.diverts))

        def died(error: KafkaError) -> None:
            if not failed.done():  # told more than once, it is still one death
                failed.set_result(error)

        try:
            source = await self._join(cluster, died)
        except PermanentKafkaError as error:
            raise SourceError(str(error)) from error
        rate, done = RateLimit(self._policy.records_per_second), 0
        try:
            while (chunk := await self._next(source, failed)) is not None:
                self._resume(cluster)
                if chunk.claim():
                    await asyncio.sleep(rate.delay(len(chunk), monotonic()))
                    await pipeline.run(chunk)
                    chunk.finish()
                    metrics.DRAINED.labels(cluster).inc(len(chunk))
                    done += len(chunk)
        finally:
            await source.abort()
        return done

    async def _next(self, source: Source, failed: asyncio.Future[KafkaError]) -> Chunk | None:
        """The next chunk; None when none has come for a while.

        Raises:
            TransientKafkaError: the source has ended, and may be joined again.
            SourceError: it has ended for good.
        """
        coming = asyncio.ensure_future(source.next())
        try:
            await asyncio.wait((coming, failed), timeout=self._policy.idle_seconds, return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                error = failed.result()
                raise error if isinstance(error, TransientKafkaError) else SourceError(str(error))
            return coming.result() if coming.done() else None
        finally:
            coming.cancel()
