"""What a live feed shows and where its reader stands, without any server."""

import asyncio
from dataclasses import dataclass, field

import msgspec
import pytest
from confluent_kafka import Message

from eventstore.events import Coordinates, event_id
from eventstore.events.erasure import Erasures
from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.http import Headers, HttpError, Request, Streamed
from eventstore.gateway.live import REMEMBERED, TURN, Feed, Live, Place
from eventstore.gateway.routes import Guard
from eventstore.gateway.ui import POLICY, ui_routes
from eventstore.ingest.admission import Admission, ClockRules
from eventstore.stream.follower import _hand_over
from eventstore.stream.offsets import Held
from eventstore.stream.partitioner import partition_of
from eventstore.stream.past import Part
from eventstore.stream.watch import BUFFER_BYTES, Ending, Watch, WatchEnded
from eventstore.tenancy import Tenant
from tests.builders import NOW_MS, envelope, registry
from tests.gateways import no_body
from tests.records import message

pytestmark = pytest.mark.unit


def feed(erasures: Erasures | None = None) -> Feed:
    return Feed(lambda: Admission(registry(), NOW_MS * 1_000, ClockRules(), erasures or Erasures()))


def shown(lines: list[bytes]) -> list[tuple[str, str]]:
    """The id and the event's name of each."""
    found = []
    for line in lines:
        place, data = line.decode().strip().split("\n")
        found.append((place.removeprefix("id: "), msgspec.json.decode(data.removeprefix("data: "))["event"]))
    return found


@pytest.mark.parametrize(("key", "hashed"), [
    (b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829), (b"abc", 479470107), (b"", 275646681),
])  # fmt: skip
def test_keys_are_hashed_as_kafkas_java_client_hashes_them(key: bytes, hashed: int) -> None:
    assert partition_of(key, 2**31) == hashed & 0x7FFFFFFF


def test_the_id_of_an_event_is_the_place_behind_it() -> None:
    assert shown(list(feed().lines([message(41)]))) == [("3.42", "product_viewed")]
    assert Place.parse("3.42") == Place(3, 42)


@pytest.mark.parametrize("text", ["", "3", "3.4.5", "a.4", "3.-1", "3.²", "3." + "9" * 19])
def test_anything_else_is_no_place(text: str) -> None:
    with pytest.raises(HttpError) as refused:
        Place.parse(text)
    assert refused.value.status == 400


def test_an_event_is_shown_once_however_often_its_producer_has_sent_it() -> None:
    double = envelope(message_id="m1")
    assert len(list(feed().lines([message(1, double), message(2, double), message(3)]))) == 2


def test_what_is_remembered_for_that_is_bounded() -> None:
    reader = feed()
    records = [message(n, envelope(message_id=f"m{n}")) for n in range(REMEMBERED + 1)]
    assert len(list(reader.lines([*records, records[-1]]))) == REMEMBERED + 1
    assert len(list(reader.lines(records[:1]))) == 1


def test_what_the_workers_would_not_store_is_not_shown() -> None:
    erased = Erasures({b"shop:u1": NOW_MS * 1_000 - 1})
    old = message(1, envelope(timestamp=NOW_MS - 1))
    records = [old, message(2, b"no JSON"), message(3, envelope(tenant="nobody")), message(4, envelope(timestamp=1))]
    assert shown(list(feed(erased).lines([*records, message(5)]))) == [("3.6", "product_viewed")]


def test_a_replayed_record_keeps_the_identity_of_its_origin() -> None:
    replayed = message(9, headers=[("es-origin", b"events/1/7")])
    (line,) = feed().lines([replayed])
    eid = msgspec.json.decode(line.split(b"data: ")[1])["eid"]
    assert eid.replace("-", "") == event_id("shop", None, lambda: Coordinates("events", 1, 7)).hex()


def big(offset: int) -> Message:
    return message(offset, b"x" * (BUFFER_BYTES // 4))


def burst(watch: Watch, offsets: range) -> None:
    """As one look at Kafka hands over what it has found."""
    _hand_over([(watch, big(offset)) for offset in offsets])


def test_a_reader_who_has_not_taken_what_came_before_is_sent_away() -> None:
    async def scenario() -> None:
        watch = Watch(b"shop:u1", 3)
        burst(watch, range(3))
        assert [record.offset() for record in await watch.take(0)] == [0, 1, 2]
        burst(watch, range(3, 9))
        burst(watch, range(9, 10))
        with pytest.raises(WatchEnded) as ended:
            await watch.take(0)
        assert ended.value.why is Ending.SLOW

    asyncio.run(scenario())


def test_a_reader_who_keeps_up_is_not_sent_away_however_much_comes_at_once() -> None:
    async def scenario() -> None:
        watch = Watch(b"shop:u1", 3)
        for start in (0, 12, 24):
            burst(watch, range(start, start + 12))  # three times what may wait
            assert [record.offset() for record in await watch.take(0)] == list(range(start, start + 12))

    asyncio.run(scenario())


def test_a_reader_who_waits_is_not_slow_because_others_keep_the_loop_busy() -> None:
    async def scenario() -> None:
        watch = Watch(b"shop:u1", 3)
        taking = asyncio.create_task(watch.take(60))
        await asyncio.sleep(0)
        for start in (0, 6, 12):  # three looks have come when he has his turn
            burst(watch, range(start, start + 6))
        assert [record.offset() for record in await taking] == list(range(18))
        burst(watch, range(18, 24))
        burst(watch, range(24, 25))
        with pytest.raises(WatchEnded):
            await watch.take(0)

    asyncio.run(scenario())


def test_what_comes_in_the_moment_in_which_a_reader_gives_up_waiting_is_given_and_not_passed_over() -> None:
    async def scenario() -> None:
        watch = Watch(b"shop:u1", 3)
        taking = asyncio.create_task(watch.take(0))
        await asyncio.sleep(0)
        watch.hear(message(7))
        assert ([record.offset() for record in await taking], watch.position) == ([7], 8)

    asyncio.run(scenario())


def test_a_reader_is_not_given_again_what_another_gateway_has_given_him() -> None:
    async def scenario() -> None:
        watch = Watch(b"shop:u1", 3)
        watch.start = 5
        burst(watch, range(5, 7))
        watch.skip_to(8)
        assert (watch.position, await watch.take(0.001)) == (8, [])
        burst(watch, range(7, 10))
        assert [record.offset() for record in await watch.take(0)] == [8, 9]
        watch.skip_to(3)
        assert watch.position == 10

    asyncio.run(scenario())


def test_a_reader_waits_no_longer_than_he_wants_and_his_place_moves_on_meanwhile() -> None:
    async def scenario() -> None:
        watch = Watch(b"shop:u1", 3)
        watch.start = 5
        assert (await watch.take(0.001), watch.position) == ([], 5)
        watch.passed(9)
        assert (await watch.take(0.001), watch.position) == ([], 9)

    asyncio.run(scenario())


def test_a_reader_who_waits_hears_that_his_feed_has_ended() -> None:
    async def scenario() -> None:
        watch = Watch(b"shop:u1", 3)
        waiting = asyncio.create_task(watch.take(60))
        await asyncio.sleep(0)
        watch.end(Ending.STOPPED)
        watch.end(Ending.FAILED)
        with pytest.raises(WatchEnded) as ended:
            await waiting
        assert ended.value.why is Ending.STOPPED

    asyncio.run(scenario())


@dataclass
class Kafka:
    """Stands in for the tail: one partition whose records are `first` to `last`, of which this gateway's follower has heard some."""

    heard: int
    """The offset that the follower reads next."""
    end_offset: int
    free: asyncio.Event = field(default_factory=asyncio.Event)
    watches: list[Watch] = field(default_factory=list)
    read: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.free.set()

    async def watch(self, key: bytes) -> Watch:
        await self.free.wait()
        watch = Watch(key, 3)
        watch.start, watch.held = self.heard, Held(0, self.heard)
        self.watches.append(watch)
        return watch

    async def past(self, watch: Watch, since: int) -> Part:
        self.read.append((since, watch.start))
        return Part([message(offset) for offset in range(since, watch.start)], whole=True)

    async def committed(self, _: str) -> dict[int, int]:
        return {3: 0}

    async def end(self, _: int) -> int:
        return self.end_offset

    def leave(self, watch: Watch) -> None:
        self.watches.remove(watch)


class OpenDoor(Doorkeeper):
    """Whatever the key is."""

    def tenant_of(self, key: str | None, guard: Guard) -> Tenant:
        return self.registry().tenants["shop"]


def live(kafka: Kafka, most: int = 10) -> Live:
    known = registry()
    doorkeeper = OpenDoor(lambda: known, lambda: 0.0)
    made = Live(doorkeeper, kafka, lambda: known, ClockRules(), "workers", 60.0, most, lambda: NOW_MS * 1_000)  # type: ignore[arg-type]
    made._hearing = True
    return made


def asked(last: str = "") -> Request:
    return Request(
        method="GET", path="", query_string="", headers=Headers([(b"last-event-id", last.encode())] if last else []),
        receive=no_body, body_seconds=1.0, received_micros=0, params={"uid": "u1"}, tenant=registry().tenants["shop"],
    )  # fmt: skip


def offsets(part: bytes) -> list[int]:
    """Of the events in a part of a feed: the place behind each is its id."""
    return [int(block.split(b"\n")[0].split(b".")[1]) - 1 for block in part.split(b"\n\n") if b'data: {"' in block]


def test_a_reader_who_comes_from_a_gateway_that_is_further_is_given_nothing_twice() -> None:
    async def scenario() -> None:
        kafka = Kafka(heard=5, end_offset=9)
        feed = await live(kafka).live(asked("3.8"))
        head = await anext(aiter(feed.parts))
        assert (offsets(head), b"reset" in head, b"id: 3.8" in head) == ([], False, True)
        _hand_over([(kafka.watches[0], message(offset)) for offset in range(5, 10)])
        assert offsets(await anext(aiter(feed.parts))) == [8, 9]

    asyncio.run(scenario())


def test_a_place_beyond_the_end_is_of_another_topic_and_told_so() -> None:
    async def scenario() -> None:
        kafka = Kafka(heard=5, end_offset=9)
        feed = await live(kafka).live(asked("3.10"))
        head = await anext(aiter(feed.parts))
        assert (offsets(head), b"event: reset" in head) == ([0, 1, 2, 3, 4], True)

    asyncio.run(scenario())


def test_others_have_their_turn_while_a_long_past_is_judged() -> None:
    async def scenario() -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(others())
        await asyncio.sleep(0)
        before = turns
        await live(Kafka(heard=5 * TURN, end_offset=5 * TURN)).live(asked("3.0"))
        assert turns - before >= 5
        other.cancel()

    asyncio.run(scenario())


def test_feeds_that_are_about_to_be_opened_count_among_those_there_may_be() -> None:
    async def scenario() -> None:
        kafka = Kafka(heard=0, end_offset=0)
        kafka.free.clear()
        site = live(kafka, most=2)
        opening = [asyncio.create_task(site.live(asked())) for _ in range(5)]
        await asyncio.sleep(0)
        kafka.free.set()
        found = await asyncio.gather(*opening, return_exceptions=True)
        feeds = [each for each in found if isinstance(each, Streamed)]
        assert [each.status for each in found if isinstance(each, HttpError)] == [503] * 3
        await feeds[0].parts.aclose()  # type: ignore[attr-defined]  # a generator, as the service knows
        assert (site.open, len(kafka.watches)) == (1, 1)
        await site.live(asked())
        assert site.open == 2

    asyncio.run(scenario())


def test_a_feed_that_does_not_begin_is_given_up_and_its_place_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventstore.gateway.live.OPEN_SECONDS", 0.01)

    async def scenario() -> None:
        kafka = Kafka(heard=0, end_offset=0)
        kafka.free.clear()
        site = live(kafka)
        with pytest.raises(HttpError) as refused:
            await site.live(asked())
        assert (refused.value.status, site.open) == (503, 0)

    asyncio.run(scenario())


def test_the_page_loads_nothing_from_elsewhere_and_nothing_inline() -> None:
    paths = {route.path for route in ui_routes()}
    assert {"/ui", "/ui/app.js", "/ui/style.css"} <= paths
    assert "'unsafe" not in POLICY
    assert "default-src 'none'" in POLICY
