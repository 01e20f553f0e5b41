"""What a partition held for single keys between two offsets: for readers who come back. Many who do so at a time share one
pass over the partition, as they all do when a gateway has been started again.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from eventstore.config import KafkaSettings
from eventstore.stream.chunk import Record
from eventstore.stream.range_reader import RangeReader
from eventstore.stream.watch import RECORD_BYTES

PART_BYTES: Final = 4 * 2**20
"""Most that one reader is given at a time; he comes again for the rest."""


class Part(NamedTuple):
    records: list[Record]
    whole: bool
    """Whether these are all; else the later ones are missing."""


class _Wish:
    """What one reader has missed."""

    def __init__(self, key: bytes, partition: int, since: int, before: int) -> None:
        self.key = key
        self.partition = partition
        self.since = since
        self.before = before
        self.answer: asyncio.Future[Part] = asyncio.get_running_loop().create_future()
        self.records: list[Record] = []
        self.bytes = 0
        self.whole = True

    def hear(self, record: Record) -> None:
        if not self.whole or not self.since <= record.offset() < self.before:
            return
        self.bytes += len(record.value() or b"") + RECORD_BYTES
        if self.bytes > PART_BYTES and self.records:
            self.whole = False
        else:
            self.records.append(record)

    def grant(self) -> None:
        if not self.answer.done():
            self.answer.set_result(Part(self.records, self.whole))

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Past:
    """Lives on the event loop; its thread reads."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="past")
        self._wishes: list[_Wish] = []
        self._reading: asyncio.Task[None] | None = None

    async def read(self, key: bytes, partition: int, since: int, before: int) -> Part:
        """The key's records at offsets from `since` up to before `before`.

        Raises:
            TransientKafkaError, PermanentKafkaError: the brokers cannot or will not answer.
        """
        if since >= before:
            return Part([], whole=True)
        wish = _Wish(key, partition, since, before)
        self._wishes.append(wish)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._grant())
        return await wish.answer

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def _grant(self) -> None:
        """Until nobody wishes for anything; whoever comes meanwhile is served by the next pass."""
        while wishes := self._wishes:
            self._wishes = []
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._pass, wishes)
            except Exception as error:  # noqa: BLE001 — it is the readers' to tell
                for wish in wishes:
                    wish.fail(error)
            else:
                for wish in wishes:
                    wish.grant()
            finally:
                for wish in wishes:
                    wish.answer.cancel()  # whatever has not been answered: we are being closed

    def _pass(self, wishes: list[_Wish]) -> None:
        bounds: dict[int, tuple[int, int]] = {}
        readers: dict[tuple[int, bytes], list[_Wish]] = {}
        for wish in wishes:
            since, before = bounds.get(wish.partition, (wish.since, wish.before))
            bounds[wish.partition] = min(since, wish.since), max(before, wish.before)
            readers.setdefault((wish.partition, wish.key), []).append(wish)
        with RangeReader(self._kafka, self._topic) as reader:
            for records in reader.between(bounds):
                for record in records:
                    for wish in readers.get((record.partition(), record.key()), ()):
                        wish.hear(record)
