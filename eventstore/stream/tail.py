"""The event topic as it grows, for whoever watches single keys: only their partitions are read, and only while watched.

Who watches is no member of any group, so watching disturbs no worker.
"""

import asyncio
from typing import Final, Self

import structlog

from eventstore.config import KafkaSettings
from eventstore.stream.follower import Follower
from eventstore.stream.offsets import Held, TopicOffsets
from eventstore.stream.partitioner import partition_of
from eventstore.stream.past import Part, Past
from eventstore.stream.watch import Ending, Watch

log = structlog.stdlib.get_logger(__name__)

GROWTH_SECONDS: Final = 30.0
"""Between two looks whether the topic has got more partitions."""


class Tail:
    """Use as an asynchronous context manager; connects when somebody watches first."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self.topic = topic
        self._kafka = kafka
        self._watches: set[Watch] = set()
        self._partitions = 0
        self._asking: asyncio.Task[dict[int, Held]] | None = None
        self._offsets: TopicOffsets | None = None
        self._past = Past(kafka, topic)
        self._follower: Follower | None = None
        self._growth: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._growth = asyncio.create_task(self._watch_growth())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end_all(Ending.STOPPED)
        if self._growth is not None:
            self._growth.cancel()
        if self._follower is not None:
            await asyncio.to_thread(self._follower.close)
        await self._past.close()

    def __len__(self) -> int:
        return len(self._watches)

    async def watch(self, key: bytes) -> Watch:
        """Hear every record of the key from now on; `leave` it in the end.

        Raises:
            TransientKafkaError, PermanentKafkaError: the brokers cannot or will not answer.
        """
        held = await self._held()
        watch = Watch(key, partition_of(key, len(held)))
        watch.held = held[watch.partition]
        self._watches.add(watch)
        try:
            await asyncio.wrap_future(self._following().begin(watch))
        except BaseException:
            self.leave(watch)
            raise
        return watch

    def leave(self, watch: Watch) -> None:
        """Hear no more; who hears the last of a partition leaves, the partition is read no more."""
        self._watches.discard(watch)
        if self._follower is not None:
            self._follower.leave(watch)

    async def past(self, watch: Watch, since: int) -> Part:
        """The key's records from this offset up to the watch's start, as many as may be given at a time.

        Raises:
            TransientKafkaError, PermanentKafkaError: the brokers cannot or will not answer.
        """
        return await self._past.read(watch.key, watch.partition, since, watch.start)

    async def end(self, partition: int) -> int:
        """The offset behind the last record that a partition holds now. Raises KafkaError."""
        held = await asyncio.to_thread(self._asked().held)
        return held[partition].end if partition in held else 0

    async def committed(self, group: str) -> dict[int, int]:
        """Where a consumer group stands. Raises KafkaError."""
        return await asyncio.to_thread(self._asked().committed, group)

    def end_all(self, why: Ending) -> None:
        for watch in self._watches:
            watch.end(why)

    async def _held(self) -> dict[int, Held]:
        """What the partitions hold; many who come at a time ask once."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(asyncio.to_thread(self._asked().held))
        held = await asyncio.shield(self._asking)
        if len(held) != self._partitions:
            self.end_all(Ending.MOVED)
            self._partitions = len(held)
        return held

    async def _watch_growth(self) -> None:
        while True:
            await asyncio.sleep(GROWTH_SECONDS)
            if self._watches:
                try:
                    await self._held()
                except Exception as error:  # noqa: BLE001 — Kafka is away: the watches wait for it, too
                    log.warning("the live feed's topic cannot be looked at", error=str(error))

    def _asked(self) -> TopicOffsets:
        if self._offsets is None:
            self._offsets = TopicOffsets(self._kafka, self.topic)
        return self._offsets

    def _following(self) -> Follower:
        if self._follower is None:
            self._follower = Follower(self._kafka, self.topic)
        return self._follower
