"""Routes over clusters in memory: what an edited registry, and a cluster that is away, do to them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from eventstore.errors import PermanentStoreError, StoreError, TransientStoreError
from eventstore.events.cells import Batch
from eventstore.ingest import routes as module
from eventstore.ingest.circuit import State, Wanted
from eventstore.ingest.routes import Routes
from eventstore.store.writer import EventWriter, Failure
from eventstore.tenancy import Registry, Tenant, Tier
from tests.builders import batch, cluster, registry, row, tier
from tests.loops import on_event_loop
from tests.waiting import eventually

pytestmark = pytest.mark.unit

C15 = tier("t15", days=15, on=cluster("c15"))
ONE = registry(Tenant("shop", tier("t30")))
BOTH = registry(Tenant("shop", tier("t30")), Tenant("forum", C15))


class InMemory:
    def __init__(self, name: str) -> None:
        self.cluster = name
        self.answering = asyncio.Event()
        self.answering.set()
        self.writing = False
        self.closed = False
        self.acknowledged = 0

    async def write(self, batches: Sequence[Batch]) -> list[Failure]:
        self.writing = True
        await self.answering.wait()
        return []

    async def close(self) -> None:
        self.closed = True


class Clusters:
    """What there is to connect to."""

    def __init__(self) -> None:
        self.opened: list[InMemory] = []
        self.away: dict[str, StoreError] = {}
        self.prepared: list[Registry] = []
        self.routes = Routes(self.connect, prepare=self.prepare)

    async def connect(self, tier: Tier) -> EventWriter:
        if (error := self.away.get(tier.cluster.name)) is not None:
            raise error
        self.opened.append(InMemory(tier.cluster.name))
        return self.opened[-1]

    async def prepare(self, following: Registry) -> None:
        assert following is not self.routes._registry
        self.prepared.append(following)


@on_event_loop
async def test_a_cluster_that_is_away_does_not_keep_a_registry_from_being_followed() -> None:
    clusters = Clusters()
    clusters.away["c15"] = TransientStoreError("no node answers")
    await clusters.routes.follow(BOTH)
    assert clusters.routes.states == {"c30": State.CLOSED, "c15": State.OPEN}
    assert clusters.prepared == [BOTH]
    await clusters.routes.close()


@on_event_loop
async def test_a_cluster_that_cannot_be_used_leaves_the_routes_as_they_were() -> None:
    clusters = Clusters()
    await clusters.routes.follow(ONE)
    clusters.away["c15"] = PermanentStoreError("no such keyspace")
    with pytest.raises(PermanentStoreError):
        await clusters.routes.follow(BOTH)
    assert clusters.routes.registry is ONE
    assert list(clusters.routes.states) == ["c30"]
    await clusters.routes.close()


@on_event_loop
async def test_a_writer_that_nothing_is_routed_to_is_closed_when_its_last_write_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.001)
    clusters = Clusters()
    await clusters.routes.follow(BOTH)
    leaving = next(each for each in clusters.opened if each.cluster == "c15")
    leaving.answering.clear()
    last = asyncio.create_task(clusters.routes.outlet("c15").store([batch(row())]))
    await eventually(lambda: leaving.writing, "the last write")
    await clusters.routes.follow(ONE)
    watching = asyncio.create_task(clusters.routes.keep_watch())
    await asyncio.sleep(0.01)
    assert not leaving.closed
    leaving.answering.set()
    await last
    await eventually(lambda: leaving.closed, "the writer's end")
    assert [each.closed for each in clusters.opened if each is not leaving] == [False]
    watching.cancel()
    await clusters.routes.close()


@on_event_loop
async def test_a_cluster_at_another_address_is_connected_anew() -> None:
    clusters = Clusters()
    await clusters.routes.follow(ONE)
    moved = tier("t30", on=replace(tier("t30").cluster, port=19042))
    await clusters.routes.follow(registry(Tenant("shop", moved)))
    assert [each.cluster for each in clusters.opened] == ["c30", "c30"]
    await clusters.routes.close()


@on_event_loop
async def test_what_an_operator_wants_holds_for_a_cluster_that_comes_later() -> None:
    clusters = Clusters()
    clusters.routes.want("c15", Wanted.OPEN)
    await clusters.routes.follow(BOTH)
    assert clusters.routes.states == {"c30": State.CLOSED, "c15": State.OPEN}
    clusters.routes.want("c30", Wanted.OPEN)
    assert clusters.routes.states["c30"] is State.OPEN
    await clusters.routes.close()
