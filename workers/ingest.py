"""The ingest worker: a Faust app whose one agent sends hauls of chunks through the pipeline."""

import asyncio
import faulthandler
from collections.abc import Awaitable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, NamedTuple

import structlog
import uvloop

from eventstore import __version__, metrics
from eventstore.config import Settings
from eventstore.errors import ExitCode
from eventstore.ingest.health import Stage
from eventstore.ingest.meter import Meter
from eventstore.ingest.pipeline import Pipeline
from eventstore.registry import RegistryFile
from eventstore.stream.chunk import Haul
from eventstore.stream.group import consumer_policy, group_config
from eventstore.stream.transport import ChunkApp
from eventstore.tenancy import Registry
from workers.assembly import Assembly, assemble
from workers.process import bound_the_end, on_stop_signals, orphaned, settle_garbage
from workers.status import Pulse, StatusServer

log = structlog.stdlib.get_logger(__name__)

CONCURRENT_HAULS = 128
"""Hauls decoded and on their way at once; more chunks wait undecoded, where a revocation can still drop them. Fresh hauls are
small, and a store that answers slowly needs many of them under way; of large ones `worker.in_flight_records` bounds how many
there are.
"""


def main(settings: Settings) -> ExitCode:
    """Run one worker until it is told to stop.

    Raises:
        EventstoreError: what ended it; nothing unfinished was committed.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(IngestWorker(settings).run())
    finally:
        faulthandler.cancel_dump_traceback_later()


class Prepared(NamedTuple):
    """What a worker needs before it joins the group."""

    assembly: Assembly
    app: ChunkApp


@dataclass(slots=True)
class IngestWorker:
    settings: Settings
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    meter: Meter = field(default_factory=Meter)
    running: set[asyncio.Task[None]] = field(default_factory=set)
    """Hauls that are being worked on."""

    pulse: Pulse = field(init=False)

    def __post_init__(self) -> None:
        self.pulse = Pulse(self.settings.worker)

    async def run(self) -> ExitCode:
        on_stop_signals(self.stop.set)
        async with AsyncExitStack() as stack:
            self._serve_status(stack)
            prepared = await self._unless_stopped(self._prepare(stack))
            if prepared is None:
                return ExitCode.DONE
            await self._run_app(prepared)
        if prepared.app.failure is not None:
            raise prepared.app.failure
        log.info("worker stopped", **self.meter.figures())
        return ExitCode.DONE

    async def _unless_stopped(self, work: Coroutine[Any, Any, Prepared]) -> Prepared | None:
        """The work's result; None if we were told to stop first."""
        working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(self.stop.wait())
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if working.done():
            return working.result()
        bound_the_end(self.settings.worker.drain_timeout)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return None

    async def _prepare(self, stack: AsyncExitStack) -> Prepared:
        registry = RegistryFile(self.settings.registry)
        self._announce(registry.current)
        assembly = await assemble(self.settings, registry, stack)
        self.pulse.circuits = lambda: assembly.routes.states
        return Prepared(assembly, self.app(assembly.pipeline))

    def app(self, pipeline: Pipeline) -> ChunkApp:
        worker = self.settings.worker
        app = ChunkApp(
            worker.group, kafka_config=group_config(self.settings.kafka, worker), policy=consumer_policy(worker)
        )
        self.pulse.member = lambda: app.member
        slots = asyncio.Semaphore(CONCURRENT_HAULS)

        async def ingest(haul: Haul) -> None:
            try:
                self.meter.begin()
                self.pulse.begin(haul)
                await pipeline.run(haul)
                haul.finish()
                self.meter.end(len(haul))
                metrics.CONSUMED.inc(len(haul))
            except Exception as error:  # noqa: BLE001 — whatever it is, the haul is not finished and the worker must end
                app.fail(error)
            finally:
                self.pulse.end(haul)
                slots.release()

        @app.agent(app.chunk_topic(self.settings.topics.events), name="ingest")
        async def agent(chunks: object) -> None:
            async for chunk in chunks:  # type: ignore[attr-defined]
                await slots.acquire()
                if (haul := chunk.haul()) is not None:
                    task = asyncio.create_task(ingest(haul))
                    self.running.add(task)
                    task.add_done_callback(self.running.discard)
                else:
                    slots.release()

        return app

    async def _run_app(self, prepared: Prepared) -> None:
        assembly, app = prepared

        async def guarded(work: Awaitable[None]) -> None:
            try:
                await work
            except Exception as bug:  # noqa: BLE001 — a worker without its watchers would go on as if nothing were
                app.fail(bug)

        tasks = [asyncio.create_task(guarded(work)) for work in (*assembly.watchers, self._stop_with_supervisor())]
        drains = asyncio.create_task(guarded(assembly.drains))
        ends = [asyncio.ensure_future(self.stop.wait()), asyncio.ensure_future(app.failed.wait())]
        try:
            await app.start()
            self.pulse.stage = Stage.RUNNING
            settle_garbage()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.pulse.stage = Stage.STOPPING
            bound_the_end(self.settings.worker.drain_timeout)
            drains.cancel()  # they leave their groups while the live one drains
            await app.stop()
            left = [*tasks, *ends, *self.running]  # hauls the drain time was too short for: others do them again
            for task in left:
                task.cancel()
            await asyncio.gather(drains, *left, return_exceptions=True)

    def _serve_status(self, stack: AsyncExitStack) -> None:
        """From the first moment to the last: who waits for readiness must get an answer while clusters are connected to."""
        beating = asyncio.create_task(self.pulse.heart.beat())
        stack.callback(beating.cancel)
        if port := self.settings.worker.metrics_port:
            stack.enter_context(StatusServer(port, self.pulse.probes))

    async def _stop_with_supervisor(self) -> None:
        await orphaned()
        self.stop.set()

    def _announce(self, registry: Registry) -> None:
        worker = self.settings.worker
        log.info(
            "worker starting",
            version=__version__,
            brokers=self.settings.kafka.bootstrap_servers,
            topic=self.settings.topics.events,
            dead_letters=self.settings.topics.dead_letters,
            group=worker.group,
            group_protocol=worker.group_protocol.value,
            clusters={t.cluster.name: f"{t.retention_seconds // 86_400}d" for t in registry.tiers.values()},
            tenants=len(registry.tenants),
            in_flight_records=worker.in_flight_records,
            in_flight_bytes=worker.in_flight_bytes,
            batch_rows=self.settings.writer.batch_rows,
            batch_bytes=self.settings.writer.batch_bytes,
            in_flight_batches=self.settings.writer.in_flight_batches,
            retry_deadline=self.settings.writer.retry_deadline,
            drain_timeout=worker.drain_timeout,
            clients={name: version(name) for name in ("confluent-kafka", "scylla-driver", "faust-streaming")},
            metrics_port=worker.metrics_port or None,
        )
