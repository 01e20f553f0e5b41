"""The HTTP edge as a process: granian serves, the library answers, Kafka and the clusters are behind it."""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from enum import StrEnum
from time import monotonic

import structlog
import uvloop
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from eventstore import __version__
from eventstore.config import GatewaySettings, Settings
from eventstore.errors import ConfigurationError, ExitCode
from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.collect import Collector
from eventstore.gateway.cors import Cors
from eventstore.gateway.routes import Route, Router
from eventstore.gateway.service import SAFE, Gateway
from eventstore.registry import RegistryFile
from eventstore.stream.dead_letters import DeadLetterProducer
from eventstore.stream.publisher import Publisher

log = structlog.stdlib.get_logger(__name__)

BACKLOG = 1_024


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
        return runner.run(serve(settings, parts))


async def serve(settings: Settings, parts: Sequence[Part]) -> ExitCode:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        registry = RegistryFile(settings.registry)
        doorkeeper = Doorkeeper(lambda: registry.current, monotonic)
        routes = await _routes(settings, parts, doorkeeper, stack)
        gateway = Gateway(
            Router(routes),
            doorkeeper,
            Cors(frozenset(settings.gateway.cors_origins)),
            settings.gateway.body_timeout,
            settings.gateway.open_requests,
            headers=SAFE if settings.gateway.tls_certificate is None else (*SAFE, _STRICT_TRANSPORT),
        )
        watching = asyncio.create_task(registry.watch())
        stack.callback(watching.cancel)
        await _listen(settings.gateway, gateway, stop)
    log.info("gateway stopped")
    return ExitCode.DONE


async def _routes(
    settings: Settings, parts: Sequence[Part], doorkeeper: Doorkeeper, stack: AsyncExitStack
) -> list[Route]:
    routes: list[Route] = []
    if Part.COLLECT in parts:
        publisher = await stack.enter_async_context(
            Publisher(settings.kafka, settings.producer, settings.topics.events)
        )
        dead_letters = await stack.enter_async_context(
            DeadLetterProducer(settings.kafka, settings.producer, settings.topics.dead_letters)
        )
        collector = Collector(
            doorkeeper,
            publisher,
            dead_letters,
            settings.topics.events,
            int(settings.worker.max_future * 1_000_000),
            settings.gateway.request_bytes,
        )
        routes += collector.routes()
    return routes


async def _listen(settings: GatewaySettings, gateway: Gateway, stop: asyncio.Event) -> None:
    server = Server(
        gateway,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=int(settings.header_timeout * 1_000)),
        websockets=False,
        backlog=BACKLOG,
        log_enabled=False,
        ssl_cert=settings.tls_certificate,
        ssl_key=settings.tls_key,
    )
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stop.wait())
    log.info("gateway starting", version=__version__, address=f"{settings.host}:{settings.port}")
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        stopping.cancel()
        serving.result()
        raise ConfigurationError(f"gateway.port: expected to listen on {settings.host}:{settings.port}; is it taken?")
    server.stop()  # type: ignore[no-untyped-call]
    with suppress(TimeoutError):
        await asyncio.wait_for(gateway.idle(), settings.drain_timeout)
    await serving


_STRICT_TRANSPORT = ("strict-transport-security", "max-age=31536000")
