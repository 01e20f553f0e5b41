import asyncio
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest

from eventstore.config import ReaderSettings
from eventstore.errors import PermanentStoreError, TransientStoreError
from eventstore.events.stored import Position, Slice
from eventstore.registry import load_registry
from eventstore.store.reader import EventReaders
from eventstore.store.schema import apply_schema
from eventstore.store.session import close, connect
from eventstore.tenancy import Cluster
from tests.builders import NOW_MS
from tests.stacks import RunningStack

pytestmark = pytest.mark.integration

LIMITS = ReaderSettings(request_timeout=10.0)
PART = Slice("shop", "nobody", 1, 0, Position(NOW_MS))


@pytest.fixture(scope="module")
def cluster(stack: RunningStack) -> Iterator[Cluster]:
    """A cluster with an empty table in a keyspace of its own."""
    t30 = load_registry(stack.registry_path).tiers["t30"]
    t30 = replace(t30, cluster=replace(t30.cluster, keyspace=f"reader_{uuid4().hex[:8]}"))
    session = connect(t30.cluster, request_timeout=20.0)
    apply_schema(session, t30)
    yield t30.cluster
    session.execute(f"DROP KEYSPACE {t30.cluster.keyspace}", timeout=60.0)
    close(session)


def test_all_who_ask_while_a_cluster_connects_get_the_same_reader(cluster: Cluster) -> None:
    async def ask() -> None:
        readers = EventReaders(LIMITS)
        first, second = await asyncio.gather(readers.of(cluster), readers.of(cluster))
        assert first is second is await readers.of(cluster)
        await readers.close()

    asyncio.run(ask())


def test_a_cluster_that_does_not_answer_harms_no_other(cluster: Cluster) -> None:
    async def ask() -> None:
        readers = EventReaders(LIMITS)
        gone = replace(cluster, name="gone", port=1)
        errors = await asyncio.gather(readers.of(gone), readers.of(gone), return_exceptions=True)

        assert isinstance(errors[0], TransientStoreError)
        assert errors[0] is errors[1]
        assert await (await readers.of(cluster)).read(PART, None, 1) == []
        await readers.close()

    asyncio.run(ask())


def test_a_cluster_without_the_table_is_refused_and_leaves_no_session(cluster: Cluster) -> None:
    async def ask() -> None:
        readers = EventReaders(LIMITS)
        with pytest.raises(PermanentStoreError, match="eventstore schema check"):
            await readers.of(replace(cluster, keyspace="system"))
        await readers.close()

    asyncio.run(ask())


def test_a_read_that_is_given_up_does_not_disturb_the_next(cluster: Cluster) -> None:
    async def ask() -> None:
        readers = EventReaders(LIMITS)
        reader = await readers.of(cluster)
        given_up = asyncio.create_task(reader.read(PART, None, 1))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await reader.read(PART, None, 1) == []
        assert given_up.cancelled()
        await readers.close()

    asyncio.run(ask())
