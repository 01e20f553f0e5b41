"""Publishing from the event loop: `send` returns when Kafka has confirmed every record."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Generic, Protocol, Self, TypeVar

from eventstore.stream.producer import RecordProducer

MAX_SLICE_RECORDS: Final = 1_000
MAX_SLICE_BYTES: Final = 8 * 2**20
"""What is published before the next confirmation is awaited: this bounds memory, whatever the callers bring."""

CLOSE_SECONDS: Final = 0.2
"""For what is being sent to be confirmed after all."""


class Sized(Protocol):
    """What tells how much memory a record takes."""

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...


Item = TypeVar("Item", bound=Sized)


class ConfirmedProducer(Generic[Item]):
    """Publishes what it is given and says when it is safe.

    librdkafka sends and retries on its own threads; one thread of ours hands a slice over and waits in `flush`, which
    also runs the delivery callbacks: no task, future or wake-up of the event loop for each record, and nothing to do
    while nothing is sent. (confluent_kafka's own asyncio producer cannot send headers in its batches.)
    """

    def __init__(self, producer: RecordProducer, publish: Callable[[RecordProducer, Item], None], name: str) -> None:
        """`publish` hands one item over; it is called on the thread, which is called `name`."""
        self._producer = producer
        self._publish_one = publish
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def send(self, items: Sequence[Item]) -> None:
        """Publish the items; on return Kafka has confirmed every one. May be called by several tasks at once.

        After an error some may have been published; sending them again must do no harm.

        Raises:
            TransientKafkaError: Kafka did not confirm in time.
            PermanentKafkaError: the topic is missing, access is refused, a record is too large for the topic.
        """
        for slice_ in slices(items):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._publish, slice_)

    def _publish(self, items: Sequence[Item]) -> None:
        for item in items:
            self._publish_one(self._producer, item)
        self._producer.confirm()

    async def close(self) -> None:
        """End the thread. What is still being sent has been called off: nobody waits for it, and Kafka may be away."""
        ending = asyncio.get_running_loop().run_in_executor(None, partial(self._thread.shutdown, cancel_futures=True))
        while not (await asyncio.wait([ending], timeout=CLOSE_SECONDS))[0]:
            self._producer.abandon()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def slices(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Runs of at most MAX_SLICE_RECORDS and, unless one record alone is larger, MAX_SLICE_BYTES."""
    start = size = 0
    for end, item in enumerate(items):
        grown = size + len(item.value or b"") + len(item.key or b"")
        if end > start and (grown > MAX_SLICE_BYTES or end - start == MAX_SLICE_RECORDS):
            yield items[start:end]
            start, grown = end, grown - size
        size = grown
    if items:
        yield items[start:]
