"""The way to a connected `EventWriter`, of the kind that the settings choose."""

import asyncio
from concurrent.futures import Executor
from functools import partial
from threading import Thread

import structlog
from cassandra.cluster import Session

from eventstore.config import WritePath, WriterSettings
from eventstore.store.driver_writer import DriverWriter
from eventstore.store.lane.writer import LaneWriter
from eventstore.store.schema import require_schema
from eventstore.store.session import close, connect
from eventstore.store.writer import EventWriter
from eventstore.tenancy import Cluster, Tier

log = structlog.stdlib.get_logger(__name__)


async def open_writer(tier: Tier, settings: WriterSettings) -> EventWriter:
    """A writer to the tier's cluster, whose schema has been found fit for the tier.

    Raises:
        ConfigurationError: a password or TLS file is not where the registry says.
        RefusedError: the table was made for other rules than the tier's.
        TransientStoreError: no node answers.
        PermanentStoreError: access refused, or something is missing in the schema.
    """
    cluster = tier.cluster
    session = await session_for(cluster, settings.request_timeout)
    try:
        drift = await asyncio.to_thread(require_schema, session, tier)
    except BaseException:
        await asyncio.to_thread(close, session)
        raise
    for change in drift:
        log.warning("schema drift, see `eventstore schema check`", cluster=cluster.name, change=change.place)
    # from here on the session is the writer's
    if settings.path is WritePath.DRIVER:
        return await DriverWriter.open(cluster, session, settings.in_flight_batches)
    return await LaneWriter.open(cluster, session, settings.in_flight_batches, settings.request_timeout)


async def session_for(cluster: Cluster, request_timeout: float, threads: Executor | None = None) -> Session:
    """A session, from `connect` on another thread: one of `threads`, or of the event loop's. Raises as `connect` does.

    A thread cannot be called off: a session that comes when nobody waits for it any more is closed at once.
    """
    connecting = asyncio.get_running_loop().run_in_executor(
        threads, partial(connect, cluster, request_timeout=request_timeout)
    )
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_close_ownerless)
        raise


def _close_ownerless(connecting: "asyncio.Future[Session]") -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        # a thread of its own, because the loop's may be at their end
        Thread(target=close, args=(connecting.result(),), name="close-ownerless-session", daemon=True).start()
