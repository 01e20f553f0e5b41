"""An `EventWriter` over the CQL driver's own request path: one unlogged single-partition batch a group of rows."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from cassandra.cluster import Session
from cassandra.query import BatchStatement, BatchType, BoundStatement, PreparedStatement

from eventstore.errors import StoreError
from eventstore.events.row import Batch, Row
from eventstore.store.failures import mapped, store_error
from eventstore.store.row_codec import cells
from eventstore.store.session import close
from eventstore.store.statements import statement_in
from eventstore.store.writer import Failure
from eventstore.tenancy import Cluster


class DriverWriter:
    """Writes to one cluster.

    The driver answers on its own thread: answers are collected there and the event loop is woken once for all that have
    come in since it last looked.
    """

    def __init__(self, cluster: Cluster, session: Session, in_flight: int) -> None:
        """`in_flight`: most batches on their way at once.

        Raises:
            StoreError: the statements cannot be prepared; mostly the table is not there.
        """
        self._cluster = cluster.name
        keyspace = cluster.keyspace
        self._session = session
        with mapped(cluster.name):
            self._fresh: PreparedStatement = session.prepare(statement_in(keyspace, "insert_event"))
            self._late: PreparedStatement = session.prepare(statement_in(keyspace, "insert_late_event"))
        self._window = asyncio.Semaphore(in_flight)
        self._loop = asyncio.get_running_loop()
        self._answers: deque[tuple[asyncio.Future[None], BaseException | None]] = deque()
        self._woken = False

    @property
    def cluster(self) -> str:
        return self._cluster

    async def write(self, batches: Sequence[Batch]) -> list[Failure]:
        sent = [(batch, await self._send(batch)) for batch in batches]
        failures = []
        for batch, answer in sent:
            try:
                await answer
            except StoreError as error:
                failures.append(Failure(batch, error))
        return failures

    async def close(self) -> None:
        await self._loop.run_in_executor(None, close, self._session)

    async def _send(self, batch: Batch) -> asyncio.Future[None]:
        await self._window.acquire()
        answer = self._loop.create_future()
        response = self._session.execute_async(self._statement(batch))
        response.add_callbacks(
            callback=self._answered, callback_args=(answer, None), errback=self._failed, errback_args=(answer,)
        )
        return answer

    def _statement(self, batch: Batch) -> BoundStatement | BatchStatement:
        if len(batch) == 1:
            return self._bound(batch[0])
        batched = BatchStatement(BatchType.UNLOGGED)
        for row in batch:
            batched.add(self._bound(row))
        return batched

    def _bound(self, row: Row) -> BoundStatement:
        bound = BoundStatement(self._fresh if row.ttl_seconds is None else self._late)
        bound.values = cells(row)
        return bound

    # ---------------------------------------------------------------------------------------- on the driver's thread

    def _answered(self, _: Any, answer: asyncio.Future[None], error: BaseException | None) -> None:
        self._answers.append((answer, error))
        if not self._woken:  # two threads may both see False: one wake-up too many does no harm
            self._woken = True
            self._loop.call_soon_threadsafe(self._settle)

    def _failed(self, error: BaseException, answer: asyncio.Future[None]) -> None:
        self._answered(None, answer, error)

    # ---------------------------------------------------------------------------------------------- on the event loop

    def _settle(self) -> None:
        self._woken = False  # before looking: an answer that comes in from here on wakes us again
        while self._answers:
            answer, error = self._answers.popleft()
            self._window.release()
            if answer.done():  # its chunk was abandoned
                continue
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(store_error(error, self._cluster))
