"""Routes over clusters in memory: what an edited registry, and a cluster that is away, do to them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

import pytest

from eventstore.errors import PermanentStoreError, StoreError, TransientStoreError
from eventstore.events.cells import Batch
from eventstore.ingest import routes as module
from eventstore.ingest.circuit import CircuitPolicy, State, Wanted
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
        self.closable = asyncio.Event()
        self.closable.set()

    async def write(self, batches: Sequence[Batch]) -> list[Failure]:
        self.writing = True
        await self.answering.wait()
        return []

    async def close(self) -> None:
        await self.closable.wait()
        self.closed = True


class Clusters:
    """What there is to connect to."""

    def __init__(self, circuits: CircuitPolicy | None = None) -> None:
        self.opened: list[InMemory] = []
        self.away: dict[str, StoreError] = {}
        self.prepared: list[Registry] = []
        self.connecting = 0
        self.connectable = asyncio.Event()
        self.connectable.set()
        self.routes = Routes(self.connect, circuits=circuits, prepare=self.prepare)

    async def connect(self, tier: Tier) -> EventWriter:
        self.connecting += 1
        await self.connectable.wait()
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


@pytest.mark.parametrize(("followed", "expected"), [(ONE, State.CLOSED), (BOTH, State.OPEN)])
def test_a_cluster_of_slow_writes_makes_way_where_there_are_others(
    followed: Registry, expected: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.001)

    async def state_after_some_looks() -> State:
        routes = Clusters(CircuitPolicy(silence=1_000, patience=100, slow=40)).routes
        await routes.follow(followed)
        circuit, now = routes.outlet("c30").circuit, monotonic()
        first = circuit.begin(now - 120)
        circuit.begin(now - 60)
        circuit.end(first, now - 50)
        watching = asyncio.create_task(routes.keep_watch())
        await asyncio.sleep(0.02)
        watching.cancel()
        await routes.close()
        return circuit.state

    assert asyncio.run(state_after_some_looks()) is expected


@on_event_loop
async def test_an_unused_writer_that_takes_long_to_close_keeps_no_circuit_from_being_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.001)
    clusters = Clusters()
    await clusters.routes.follow(BOTH)
    leaving = next(each for each in clusters.opened if each.cluster == "c15")
    leaving.closable.clear()
    await clusters.routes.follow(ONE)
    watching = asyncio.create_task(clusters.routes.keep_watch())
    await eventually(lambda: bool(clusters.routes._closing), "the writer's closing")
    circuit = clusters.routes.outlet("c30").circuit
    circuit.trip(0.0, "long ago")
    await eventually(lambda: circuit.state is State.CLOSED, "a probe of the other cluster")
    assert clusters.routes._closing
    leaving.closable.set()
    await eventually(lambda: not clusters.routes._closing, "its end")
    assert leaving.closed
    watching.cancel()
    await clusters.routes.close()


@on_event_loop
async def test_what_nobody_expected_of_closing_is_raised_by_whoever_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.001)
    clusters = Clusters()
    await clusters.routes.follow(BOTH)

    async def broken() -> None:
        raise ArithmeticError("a bug")

    clusters.routes.outlet("c15").close = broken  # type: ignore[method-assign]
    await clusters.routes.follow(ONE)
    with pytest.raises(ArithmeticError):
        await clusters.routes.keep_watch()
    await clusters.routes.close()


@on_event_loop
async def test_an_unused_writer_that_routes_are_about_to_lead_to_again_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_SECONDS", 0.001)
    clusters = Clusters()
    await clusters.routes.follow(BOTH)
    await clusters.routes.follow(ONE)
    clusters.connectable.clear()  # the third one's connection takes a while
    following = asyncio.create_task(
        clusters.routes.follow(registry(*BOTH.tenants.values(), Tenant("news", tier("t60", on=cluster("c60")))))
    )
    await eventually(lambda: clusters.connecting == 3, "the edit")
    watching = asyncio.create_task(clusters.routes.keep_watch())
    await asyncio.sleep(0.01)  # a few looks
    clusters.connectable.set()
    await following
    assert [(each.cluster, each.closed) for each in clusters.opened] == [("c30", False), ("c15", False), ("c60", False)]
    watching.cancel()
    await clusters.routes.close()


@on_event_loop
async def test_what_was_connected_is_closed_when_the_start_is_called_off() -> None:
    clusters = Clusters()
    hanging = asyncio.Event()
    connect = clusters.connect

    async def one_hangs(tier: Tier) -> EventWriter:
        if tier.cluster.name == "c15":
            await hanging.wait()
        return await connect(tier)

    routes = Routes(one_hangs)
    following = asyncio.create_task(routes.follow(BOTH))
    await eventually(lambda: bool(clusters.opened), "the first connection")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert [each.closed for each in clusters.opened] == [True]


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
