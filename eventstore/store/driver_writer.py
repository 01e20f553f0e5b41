"""An `EventWriter` over the CQL driver's own request path: one unlogged single-partition batch a group of rows."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Session
from cassandra.query import BatchStatement, BatchType, BoundStatement, PreparedStatement

from eventstore import metrics
from eventstore.errors import StoreError, TransientStoreError
from eventstore.events.cells import STATEMENTS, Batch, Cells, values
from eventstore.store.failures import mapped, store_error
from eventstore.store.session import close
from eventstore.store.statements import statement_in
from eventstore.store.writer import Failure
from eventstore.tenancy import Cluster


class DriverWriter:
    """Writes to one cluster.

    The driver answers on its own thread: answers are collected there and the event loop is woken once for all that have
    come in since it last looked.
    """

    def __init__(
        self, cluster: Cluster, session: Session, in_flight: int, statements: Mapping[bytes, PreparedStatement]
    ) -> None:
        self._cluster = cluster.name
        self._session = session
        self._statements = statements
        """By the head of the rows that they insert."""
        self._window = asyncio.Semaphore(in_flight)
        self._timeout = session.get_execution_profile(EXEC_PROFILE_DEFAULT).request_timeout
        self._loop = asyncio.get_running_loop()
        self._seconds = metrics.WRITE_SECONDS.labels(cluster.name)
        self._answers: deque[tuple[asyncio.Future[None], float, BaseException | None]] = deque()
        """What was asked, when it was sent (the event loop's clock), what came."""
        self._woken = False
        self._acknowledged = 0

    @classmethod
    async def open(cls, cluster: Cluster, session: Session, in_flight: int) -> "DriverWriter":
        """A writer that closes the session at its end, or if this fails.

        Args:
            cluster: where to write; its keyspace and table are there.
            session: from `connect(cluster)`; its request time-out is each batch's.
            in_flight: most batches on their way at once.

        Raises:
            StoreError: the statements cannot be prepared; mostly the table is not there.
        """
        try:
            with mapped(cluster.name):
                statements = await asyncio.to_thread(_prepare, session, cluster.keyspace)
        except BaseException:
            await asyncio.to_thread(close, session)
            raise
        return cls(cluster, session, in_flight, statements)

    @property
    def cluster(self) -> str:
        return self._cluster

    @property
    def acknowledged(self) -> int:
        return self._acknowledged

    async def write(self, batches: Sequence[Batch]) -> list[Failure]:
        give_up = self._loop.time() + self._timeout
        sent: list[tuple[Batch, asyncio.Future[None]]] = []
        failures = []
        try:
            for batch in batches:
                if await self._may_send(give_up):
                    sent.append((batch, self._send(batch)))
                else:
                    failures.append(Failure(batch, self._no_room()))
            for batch, answer in sent:
                try:
                    await answer
                except StoreError as error:
                    failures.append(Failure(batch, error))
        finally:
            for _, answer in sent:
                answer.cancel()  # what is still on its way when the caller leaves has nobody to tell
        return failures

    async def close(self) -> None:
        await self._loop.run_in_executor(None, close, self._session)

    async def _may_send(self, give_up: float) -> bool:
        """Waits for room in the window, no longer than until `give_up`."""
        try:
            async with asyncio.timeout_at(give_up if self._window.locked() else None):
                return await self._window.acquire()
        except TimeoutError:
            return False

    def _no_room(self) -> TransientStoreError:
        return TransientStoreError(
            f"cluster {self._cluster}: it took no more batches for {self._timeout:g} s; the same request may succeed later"
        )

    def _send(self, batch: Batch) -> asyncio.Future[None]:
        answer, sent = self._loop.create_future(), self._loop.time()
        try:
            response = self._session.execute_async(self._statement(batch))
        except Exception as exc:  # noqa: BLE001 — mapped like what it answers later
            self._answered(None, answer, sent, exc)
        else:
            response.add_callbacks(
                callback=self._answered,
                callback_args=(answer, sent, None),
                errback=self._failed,
                errback_args=(answer, sent),
            )
        return answer

    def _statement(self, batch: Batch) -> BoundStatement | BatchStatement:
        if len(batch) == 1:
            return self._bound(batch[0])
        batched = BatchStatement(BatchType.UNLOGGED)
        for row in batch:
            batched.add(self._bound(row))
        return batched

    def _bound(self, row: Cells) -> BoundStatement:
        bound = BoundStatement(self._statements[row[:2]])
        bound.values = values(row)
        return bound

    # ---------------------------------------------------------------------------------------- on the driver's thread

    def _answered(self, _: Any, answer: asyncio.Future[None], sent: float, error: BaseException | None) -> None:
        self._answers.append((answer, sent, error))
        if not self._woken:  # two threads may both see False: one wake-up too many does no harm
            self._woken = True
            with suppress(RuntimeError):  # the loop has ended: nobody waits any more
                self._loop.call_soon_threadsafe(self._settle)

    def _failed(self, error: BaseException, answer: asyncio.Future[None], sent: float) -> None:
        self._answered(None, answer, sent, error)

    # ---------------------------------------------------------------------------------------------- on the event loop

    def _settle(self) -> None:
        self._woken = False  # before looking: an answer that comes in from here on wakes us again
        oldest = now = self._loop.time()
        while self._answers:
            answer, sent, error = self._answers.popleft()
            self._window.release()
            self._acknowledged += error is None
            if answer.done():  # its chunk was abandoned
                continue
            if error is None:
                oldest = min(oldest, sent)
                answer.set_result(None)
            else:
                answer.set_exception(store_error(error, self._cluster))
        if oldest < now:
            self._seconds.observe(now - oldest)


def _prepare(session: Session, keyspace: str) -> dict[bytes, PreparedStatement]:
    return {head: session.prepare(statement_in(keyspace, name)) for head, name in STATEMENTS.items()}
