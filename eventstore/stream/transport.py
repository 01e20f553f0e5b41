"""Faust over `ChunkConsumer`: the `eventstore://host:port` transport, whose agents get one Event per chunk.

Faust stays the frame (app, agents, lifecycle, timers). What it would do with offsets and rebalances is replaced:

* acknowledgement: Faust acks in `finally`, commits past holes, and drops acks on a revocation. Here its acks mean nothing:
  only `Chunk.finish` moves the ledger, so an agent that fails, or forgets, loses nothing.
* rebalances: Faust stops the flow, clears every queue and seeks every partition. Here only the routing index is updated;
  partitions that stay keep flowing.
* tables: changelog recovery assumes Faust's own consumer, so `ChunkApp` has none.
"""

import asyncio
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import faust
from faust.app.base import BootStrategy
from faust.exceptions import ImproperlyConfigured
from faust.transport import base
from faust.transport.conductor import Conductor
from faust.transport.consumer import Consumer as FaustConsumer
from faust.transport.producer import Producer as FaustProducer
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from mode import Service

from eventstore.errors import KafkaError
from eventstore.stream.assignment import ConsumerPolicy, Place
from eventstore.stream.chunk import Chunk
from eventstore.stream.consumer import ChunkConsumer


class ChunkMessage(ConsumerMessage):
    """Faust's envelope around one chunk. Its offset is the chunk's last; its value is the chunk."""

    def __init__(self, chunk: Chunk) -> None:
        tp = TP(chunk.topic, chunk.partition)
        # A generation that never changes: streams silently skip events of another one, which would be a hole for ever.
        super().__init__(
            topic=chunk.topic, partition=chunk.partition, offset=chunk.last, timestamp=0.0, timestamp_type=0,
            headers=None, key=None, value=chunk, checksum=None, tp=tp, generation_id=0,
        )  # fmt: skip


class ChunkSchema(faust.Schema):
    """Hands the chunk through as it is: decoding is the pipeline's work."""

    def compile(self, app: faust.App, **_: Any) -> Any:
        create_event = app.create_event

        async def decode(message: ChunkMessage, *, propagate: bool = False) -> Any:  # noqa: ARG001 — Faust's signature
            return create_event(None, message.value, None, message)

        return decode


class Consumer(FaustConsumer):
    """Faust's consumer service over a `ChunkConsumer`."""

    member: ChunkConsumer | None = None

    async def subscribe(self, topics: Iterable[str]) -> None:
        if self.member is not None:
            raise ImproperlyConfigured("the topics of a running worker are fixed; restart it to change them")
        self.member = ChunkConsumer(
            self.app.kafka_config,
            self.app.consumer_policy,
            on_assignment=self._assignment_changed,
            on_fatal=self._died,
            on_drained=self.app.drained.set,
        )
        try:
            self.member.start(sorted(topics))
        except KafkaError as error:  # raised, it would be logged by Faust with a stack trace
            self._died(error)
        else:
            self.add_future(self._deliver(self.member))

    async def _deliver(self, member: ChunkConsumer) -> None:
        while not self.should_stop:
            await self.callback(ChunkMessage(await member.next()))
            await asyncio.sleep(0)  # the agent is next: what waits behind this chunk it takes along, without Faust

    async def _assignment_changed(self, places: frozenset[Place]) -> None:
        """The light path: Faust's own suspends the flow of every partition, also of those that stay."""
        if self.should_stop or self.app.should_stop:
            return
        assigned = {TP(*place) for place in places}
        revoked, added = self.app._update_assignment(assigned)  # noqa: SLF001 — no public way to set an assignment
        self.app.unassigned = not assigned
        self._set_active_tps(assigned)
        await self.app.agents.on_rebalance(revoked, added)
        await self.app.topics.on_partitions_assigned(assigned)

    def _died(self, error: KafkaError) -> None:
        self.app.fail(error)

    def ack(self, message: ChunkMessage) -> bool:  # noqa: ARG002 — Faust's signature
        """Faust acks whatever an agent has left behind, failed or not: it is not told to the ledger."""
        return True

    async def drain(self) -> None:
        if self.member is not None:
            await self.member.stop()

    async def abort(self) -> None:
        if self.member is not None:
            await self.member.abort()

    def assignment(self) -> AbstractSet[TP]:
        return {TP(*place) for place in self.member.assignment} if self.member else set()

    # Commits are the member's: Faust's timers and shutdown find nothing to do.

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002, FBT001, FBT002
        return False

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002, FBT001, FBT002
        return False

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:  # noqa: ARG002
        return False

    def on_buffer_full(self, tp: TP) -> None:
        """Credits bound what is in flight; Faust would stop the partition for a second."""

    async def perform_seek(self) -> None:
        """The group's committed offsets are where partitions start."""

    def close(self) -> None:
        """The member leaves the group when it stops."""

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:  # noqa: ARG002
        return partition

    def _unsupported(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("the eventstore transport reads from committed offsets only")

    create_topic = seek_to_committed = _seek = seek_wait = _getmany = _to_message = _unsupported
    _new_topicpartition = position = highwater = topic_partitions = earliest_offsets = highwaters = _unsupported


class Producer(FaustProducer):
    """Present because the conductor asks for its buffer; what we produce needs confirmed deliveries of its own."""

    async def flush(self) -> None:
        """Nothing is ever buffered."""

    async def send(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("agents of this transport produce through eventstore.stream")


class Transport(base.Transport):
    """Registered as `eventstore://` under the entry point `faust.transports`."""

    Consumer = Consumer
    Producer = Producer
    Conductor = Conductor
    driver_version = "confluent-kafka"
    default_port = 9092


class NoTables(Service):
    """In place of Faust's table manager: nothing to recover, nothing to wait for."""

    changelog_topics: frozenset[str] = frozenset()

    def __init__(self, app: faust.App, **options: Any) -> None:
        self.app = app
        super().__init__(**options)

    def __len__(self) -> int:
        return 0

    async def wait_until_tables_registered(self) -> None:
        """There are none."""

    async def wait_until_recovery_completed(self) -> bool:
        return False


class Boot(BootStrategy):
    """Consumer, agents, conductor: no leader election, no reply topic, no web server, no Faust producer."""

    def server(self) -> Iterable[Service]:
        return [self.app.consumer, self.app.agents, self.app.topics]


class ChunkApp(faust.App):
    """A Faust app whose one agent gets chunks: `async for chunk in stream: if haul := chunk.haul(): ...; haul.finish()`."""

    BootStrategy = Boot

    def __init__(self, name: str, *, kafka_config: dict[str, Any], policy: ConsumerPolicy, **options: Any) -> None:
        self.kafka_config = kafka_config
        self.consumer_policy = policy
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()
        self.drained = asyncio.Event()
        """Set when the group has committed up to the policy's ends."""
        super().__init__(
            name,
            broker=f"eventstore://{kafka_config['bootstrap.servers'].split(',')[0]}",
            store="memory://",
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            TableManager=NoTables,
            # What waits belongs to the member, which can still drop it on a revocation; the agent's queue holds one.
            stream_buffer_maxsize=1,
            **options,
        )

    def chunk_topic(self, *names: str) -> Any:
        # acks=True would have Faust's compiled streams book every offset in lists that only its own commits trim
        return self.topic(*names, schema=ChunkSchema(), acks=False)

    @property
    def member(self) -> ChunkConsumer | None:
        """The group member, once it has been asked to join."""
        return self._consumer.member if isinstance(self._consumer, Consumer) else None

    def fail(self, error: BaseException) -> None:
        """End the app: nothing unfinished is committed, and the process must exit non-zero."""
        self._crash(error)

    def _crash(self, reason: BaseException) -> None:
        """Whatever service fails, ours or Faust's, ends up here."""
        if self.failure is None:
            self.failure = reason
        self.failed.set()
        super()._crash(reason)

    async def _on_agent_error(self, agent: Any, exc: BaseException) -> None:  # noqa: ARG002 — Faust's signature
        """Faust would start the agent again, without the events it had taken."""
        self.fail(exc)

    def _create_directories(self) -> None:
        """Faust keeps tables there, in the working directory of whoever starts us; we have none."""

    async def on_start(self) -> None:
        await super().on_start()
        self.flow_control.resume()  # before anything is queued: resuming clears the queues

    async def _stop_consumer(self) -> None:
        """Faust would suspend the flow and clear the queues of chunks that are being drained."""
        if isinstance(self._consumer, Consumer):
            await (self._consumer.abort() if self.failure else self._consumer.drain())
