"""The HTTP edge as a process: granian serves, the library answers, Kafka and the clusters are behind it."""

import asyncio
import resource
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic

import structlog
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from eventstore import __version__
from eventstore.clock import now_micros
from eventstore.config import GatewaySettings, Settings
from eventstore.errors import ConfigurationError, ExitCode
from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.bulkhead import Bulkhead
from eventstore.gateway.collect import Collector
from eventstore.gateway.cors import Cors
from eventstore.gateway.docs import docs_route
from eventstore.gateway.http import BodyBytes
from eventstore.gateway.impressions import ImpressionCollector
from eventstore.gateway.latest import LatestReader
from eventstore.gateway.live import Live
from eventstore.gateway.openapi import description, description_route
from eventstore.gateway.read import Reader
from eventstore.gateway.routes import Route, Router
from eventstore.gateway.seen import SeenReader
from eventstore.gateway.service import SAFE, Gateway
from eventstore.gateway.ui import ui_routes
from eventstore.ingest.admission import ClockRules
from eventstore.ingest.health import Check, Report, Stage, recent
from eventstore.registry import RegistryFile
from eventstore.stream.erasures import ErasureTable
from eventstore.stream.publisher import Publisher
from eventstore.stream.tail import Tail
from eventstore.stream.watch import Ending
from eventstore.timeline.connect import open_timeline
from workers.process import Heartbeat, bound_the_end, on_stop_signals, settle_garbage
from workers.status import Probes, StatusServer

log = structlog.stdlib.get_logger(__name__)

BACKLOG = 1_024
OTHER_FILES = 512
"""Beside clients' connections: those to Kafka and the clusters, and what Python holds."""
CLOSE_SECONDS = 5.0
"""For connections to end once nothing is worked on; a client that sends or reads no more must not hold the process."""
STALL_SECONDS = 10.0
"""The loop may take so long for one turn before the process counts as dead."""
STRICT_TRANSPORT = ("strict-transport-security", "max-age=31536000")


class Part(StrEnum):
    """What a gateway does; both, unless it is told one: they scale differently."""

    COLLECT = "collect"
    READ = "read"


def main(settings: Settings, parts: Sequence[Part]) -> ExitCode:
    """Serve until told to stop.

    Raises:
        EventstoreError: what ended it.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(GatewayProcess(settings, parts).run())


@dataclass(slots=True)
class GatewayProcess:
    settings: Settings
    parts: Sequence[Part]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    tail: Tail | None = None
    """What live feeds read; none where no questions are answered."""
    publishers: list[Publisher] = field(default_factory=list)
    """Of events and of dead letters; none where nothing is collected."""
    stage: Stage = Stage.STARTING
    heart: Heartbeat = field(default_factory=Heartbeat)

    async def run(self) -> ExitCode:
        on_stop_signals(self.stop.set)
        async with AsyncExitStack() as stack:
            if self.settings.gateway.metrics_port:
                probes = Probes(live=self._live, ready=self._ready)
                stack.enter_context(StatusServer(self.settings.gateway.metrics_port, probes, "gateway.metrics_port"))
            registry = RegistryFile(self.settings.registry)
            doorkeeper = Doorkeeper(lambda: registry.current, monotonic)
            gateway = self._gateway(doorkeeper, await self._routes(doorkeeper, stack))
            for work in (registry.watch(), self.heart.beat()):
                stack.callback(asyncio.create_task(work).cancel)
            await self._serve(gateway)
        log.info("gateway stopped")
        return ExitCode.DONE

    async def _routes(self, doorkeeper: Doorkeeper, stack: AsyncExitStack) -> list[Route]:
        routes: list[Route] = []
        if Part.COLLECT in self.parts:
            collector = await self._collector(doorkeeper, stack)
            routes += collector.routes()
            routes += ImpressionCollector(doorkeeper, collector.publisher, collector.max_future_micros).routes()
        if Part.READ in self.parts:
            routes += await self._questions(doorkeeper, stack)
            routes += (await self._live_feeds(doorkeeper, stack)).routes()
            routes += ui_routes()
        document = description(routes, __version__)
        return [*routes, description_route(document), docs_route(document)]

    async def _collector(self, doorkeeper: Doorkeeper, stack: AsyncExitStack) -> Collector:
        kafka, producer, topics = self.settings.kafka, self.settings.producer, self.settings.topics
        events, dead_letters = self.publishers = [
            await stack.enter_async_context(Publisher(kafka, producer, topic))
            for topic in (topics.events, topics.dead_letters)
        ]
        return Collector(
            doorkeeper,
            events,
            dead_letters,
            topics.events,
            int(self.settings.worker.max_future * 1_000_000),
            self.settings.gateway.request_bytes,
        )

    async def _questions(self, doorkeeper: Doorkeeper, stack: AsyncExitStack) -> list[Route]:
        settings = self.settings.gateway
        timeline = await stack.enter_async_context(open_timeline(self.settings, doorkeeper.registry))
        reads = Bulkhead(settings.open_reads, settings.read_timeout)
        exports = Bulkhead(settings.open_exports, settings.read_timeout)
        return [
            *Reader(doorkeeper, timeline, reads, exports).routes(),
            *LatestReader(doorkeeper, timeline, reads).routes(),
            *SeenReader(doorkeeper, timeline, reads).routes(),
        ]

    async def _live_feeds(self, doorkeeper: Doorkeeper, stack: AsyncExitStack) -> Live:
        kafka, topics, worker = self.settings.kafka, self.settings.topics, self.settings.worker
        self.tail = await stack.enter_async_context(Tail(kafka, topics.events))
        live = Live(
            doorkeeper,
            self.tail,
            doorkeeper.registry,
            ClockRules(worker.max_future, worker.late_after),
            worker.group,
            self.settings.gateway.live_heartbeat,
            self.settings.gateway.live_feeds,
            now_micros,
        )
        hearing = asyncio.create_task(live.hear_erasures(ErasureTable(kafka, topics.erasures)))
        stack.push_async_callback(_ended, hearing)
        return live

    def _gateway(self, doorkeeper: Doorkeeper, routes: Sequence[Route]) -> Gateway:
        settings = self.settings.gateway
        return Gateway(
            Router(routes),
            doorkeeper,
            Cors(frozenset(settings.cors_origins)),
            settings.body_timeout,
            settings.open_requests,
            BodyBytes(settings.body_bytes),
            headers=SAFE if settings.tls_certificate is None else (*SAFE, STRICT_TRANSPORT),
        )

    async def _serve(self, gateway: Gateway) -> None:
        settings = self.settings.gateway
        _check_connections(settings)
        _check_free(settings)
        _allow_files(settings.connections + OTHER_FILES)
        server = server_of(settings, gateway)
        serving = asyncio.create_task(server.serve())
        stopping = asyncio.create_task(self.stop.wait())
        self.stage = Stage.RUNNING
        settle_garbage()
        log.info(
            "gateway serves",
            version=__version__,
            address=f"{settings.host}:{settings.port}",
            parts=[part.value for part in self.parts],
            tls=settings.tls_certificate is not None,
            metrics_port=settings.metrics_port or None,
        )
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        self.stage = Stage.STOPPING
        if serving.done():
            stopping.cancel()
            serving.result()
            raise RuntimeError("the HTTP server ended without being told to")
        bound_the_end(settings.drain_timeout + self.settings.producer.delivery_timeout)
        server.stop()  # type: ignore[no-untyped-call]
        if self.tail is not None:
            self.tail.end_all(Ending.STOPPED)
        with suppress(TimeoutError):
            await asyncio.wait_for(gateway.idle(), settings.drain_timeout)
        gateway.cut()
        await asyncio.wait((serving,), timeout=CLOSE_SECONDS)

    def _live(self) -> Report:
        loop = recent("loop", "turned", self.heart.at, monotonic(), STALL_SECONDS)
        ended = [f"{each.topic}: {each.fatal}" for each in self.publishers if each.fatal]
        return Report((loop, Check("producers", not ended, "; ".join(ended) or "work")))

    def _ready(self) -> Report:
        stage = Check("stage", self.stage is Stage.RUNNING, self.stage.value)
        return Report((stage, *self._live().checks))


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _check_free(settings: GatewaySettings) -> None:
    """The server itself would only say that it ended."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigurationError(
                f"gateway.port: expected to listen on {settings.host}:{settings.port}: {error.strerror}; "
                "set EVENTSTORE_GATEWAY__HOST and EVENTSTORE_GATEWAY__PORT to others"
            ) from error


def _check_connections(settings: GatewaySettings) -> None:
    """Else all of them could be taken by feeds, or by requests that wait, and nobody would be told to come back."""
    least = settings.open_requests + settings.live_feeds
    if settings.connections <= least:
        raise ConfigurationError(
            f"gateway.connections: expected more than open_requests and live_feeds together ({least}), "
            f"got {settings.connections}; raise it, or lower those"
        )


def _allow_files(wanted: int) -> None:
    """Each connection is an open file; shells allow 1,024 unless they are asked for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        log.warning("fewer connections than gateway.connections can be open", open_files=most, wanted=wanted,
                    mend="raise the hard limit of open files (`ulimit -Hn`)")  # fmt: skip


def server_of(settings: GatewaySettings, gateway: Gateway) -> Server:
    return Server(
        gateway,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGINL,  # without its lifespan: Kafka and the clusters are connected before it starts
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=int(settings.header_timeout * 1_000)),
        websockets=False,
        backlog=BACKLOG,
        backpressure=settings.connections,
        log_enabled=False,
        ssl_cert=settings.tls_certificate,
        ssl_key=settings.tls_key,
    )
