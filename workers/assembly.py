"""The parts of the ingest path put together as the settings say: what every worker does with records, and what it watches."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from eventstore.clock import now_micros
from eventstore.config import KafkaSettings, Settings, TopicSettings
from eventstore.errors import KafkaError, PermanentKafkaError
from eventstore.events.erasure import Erasures
from eventstore.ingest.admission import ClockRules
from eventstore.ingest.circuit import CircuitPolicy
from eventstore.ingest.control import ControlTable
from eventstore.ingest.drain import DrainPolicy, Drains, Source
from eventstore.ingest.express import Express
from eventstore.ingest.grouping import BatchLimit
from eventstore.ingest.pipeline import Pipeline
from eventstore.ingest.rejects import RejectLimit, RejectWindow
from eventstore.ingest.retry import RetryPolicy
from eventstore.ingest.routes import Routes
from eventstore.registry import RegistryFile
from eventstore.store.opening import open_writer
from eventstore.store.writer import EventWriter
from eventstore.stream.admin import TopicAdmin
from eventstore.stream.backlogs import Backlog, Backlogs, drain_group
from eventstore.stream.consumer import ChunkConsumer, ConsumerPolicy, unheeded
from eventstore.stream.dead_letters import DeadLetterProducer
from eventstore.stream.diverts import DivertProducer
from eventstore.stream.erasures import ErasureTable
from eventstore.stream.group import consumer_policy, group_config
from eventstore.stream.topics import retry_topic, retry_topics, table_topics
from eventstore.tenancy import Registry, Tier

DRAIN_CHUNK_RECORDS = 500
DRAIN_IN_FLIGHT_RECORDS = 2_000
DRAIN_IN_FLIGHT_BYTES = 2**20
"""Of one drain, and again as much prefetched: small beside what live traffic may take, so that a worker's memory does not follow its
drains."""


@dataclass(frozen=True, slots=True)
class Assembly:
    routes: Routes
    pipeline: Pipeline
    watchers: tuple[Awaitable[None], ...]
    """What has to run beside the chunks, until the last one is done; none of them ends but with an error."""
    drains: Awaitable[None]
    """Runs likewise, and is stopped first."""


async def assemble(settings: Settings, registry: RegistryFile, stack: AsyncExitStack) -> Assembly:
    """Everything connected and caught up, so that the first chunk may come; closed again when the stack is.

    Raises:
        EventstoreError: Kafka cannot be used, or a cluster is there and cannot be used as it is.
    """
    kafka, topics = settings.kafka, settings.topics
    # before anything is routed: records must have somewhere to go at any moment
    await asyncio.to_thread(_have_topics, kafka, topics, registry.current.clusters)
    routes = _routes(settings)
    stack.push_async_callback(routes.close)
    orders = await stack.enter_async_context(ControlTable(kafka, topics.control).follow(routes.want))
    await routes.follow(registry.current)
    registry.subscribe(routes.ask)
    erasures = Erasures()
    erased = await stack.enter_async_context(ErasureTable(kafka, topics.erasures).follow(erasures))
    pipeline = _pipeline(
        settings,
        routes,
        erasures,
        await stack.enter_async_context(DeadLetterProducer(kafka, settings.producer, topics.dead_letters)),
        await stack.enter_async_context(DivertProducer(kafka, settings.producer, topics)),
    )
    watchers = (
        registry.watch(),
        routes.keep_following(),
        routes.keep_watch(),
        orders,
        erased,
    )
    return Assembly(routes, pipeline, watchers, _drains(settings, routes, pipeline).keep_draining())


def _have_topics(kafka: KafkaSettings, topics: TopicSettings, clusters: Collection[str]) -> None:
    """Create those of our own topics that are missing; the event and the dead-letter topic are the operator's."""
    admin = TopicAdmin(kafka)
    if (events := admin.topics([topics.events]).get(topics.events)) is not None:
        # no less safe than the events, whatever `topics apply` was told and this process was not
        topics = topics.model_copy(update={"replication": max(topics.replication, events.replication)})
    try:
        admin.have([*retry_topics(topics, clusters), *table_topics(topics)])
    except PermanentKafkaError as error:  # mostly a user that may not create topics
        raise PermanentKafkaError(f"{error}; or have `eventstore topics apply` run by who may create topics") from error


def _routes(settings: Settings) -> Routes:
    writer, circuit = settings.writer, settings.circuit

    async def connect(tier: Tier) -> EventWriter:
        return await open_writer(tier, writer)

    async def prepare(following: Registry) -> None:
        await asyncio.to_thread(_have_topics, settings.kafka, settings.topics, following.clusters)

    return Routes(
        connect,
        RetryPolicy(writer.backoff_base, writer.backoff_max, writer.retry_deadline),
        CircuitPolicy(
            refusal=circuit.refusal,
            silence=circuit.silence,
            patience=circuit.patience,
            slow=circuit.slow,
            first_pause=circuit.first_pause,
            longest_pause=circuit.longest_pause,
            settled=circuit.settled,
        ),
        prepare,
    )  # fmt: skip


def _pipeline(
    settings: Settings, routes: Routes, erasures: Erasures, dead_letters: DeadLetterProducer, diverts: DivertProducer
) -> Pipeline:
    writer, worker = settings.writer, settings.worker
    return Pipeline(
        registry=lambda: routes.registry,
        outlet=routes.outlet,
        dead_letters=dead_letters,
        clock=now_micros,
        express=Express(ClockRules(worker.max_future, worker.late_after), erasures),
        diverts=diverts,
        limit=BatchLimit(writer.batch_rows, writer.batch_bytes),
        rejects=RejectWindow(
            RejectLimit(worker.halt_reject_share, worker.halt_reject_records, worker.halt_reject_seconds)
        ),
    )


def _drains(settings: Settings, routes: Routes, pipeline: Pipeline) -> Drains:
    circuit, kafka, topics = settings.circuit, settings.kafka, settings.topics
    backlogs = Backlogs(kafka, topics, settings.worker.group)

    async def look() -> Mapping[str, Backlog]:
        return await asyncio.to_thread(backlogs.look)

    async def join(cluster: str, on_fatal: Callable[[KafkaError], None]) -> Source:
        worker = settings.worker.model_copy(
            update={
                "group": drain_group(settings.worker.group, cluster),
                # it comes and goes: whoever leaves must leave its partitions at once
                "instance_id": None,
                "chunk_records": DRAIN_CHUNK_RECORDS,
                "in_flight_records": DRAIN_IN_FLIGHT_RECORDS,
                "in_flight_bytes": DRAIN_IN_FLIGHT_BYTES,
                "fetch_queue_bytes": DRAIN_IN_FLIGHT_BYTES,
            }
        )
        policy: ConsumerPolicy = consumer_policy(worker)
        member = ChunkConsumer(group_config(kafka, worker), policy, unheeded, on_fatal)
        await asyncio.to_thread(member.start, [retry_topic(topics, cluster)])
        return member

    return Drains(
        lambda: routes.states, look, join, pipeline, DrainPolicy(circuit.drain_rate, circuit.drain_look, circuit.drain_idle)
    )  # fmt: skip
