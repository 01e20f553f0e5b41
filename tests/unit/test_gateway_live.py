"""What a live feed shows and where its reader stands, without any server."""

import asyncio

import msgspec
import pytest
from confluent_kafka import Message

from eventstore.events import Coordinates, event_id
from eventstore.events.erasure import Erasures
from eventstore.gateway.http import HttpError
from eventstore.gateway.live import REMEMBERED, Feed, Place
from eventstore.gateway.ui import POLICY, ui_routes
from eventstore.ingest.admission import Admission, ClockRules
from eventstore.stream.partitioner import partition_of
from eventstore.stream.watch import BUFFER_BYTES, Ending, Watch, WatchEnded
from tests.builders import NOW_MS, envelope, registry
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


def test_a_reader_who_does_not_keep_up_is_sent_away() -> None:
    async def scenario() -> None:
        watch = Watch(b"shop:u1", 3)
        for offset in range(3):
            watch.hear(big(offset))
        assert [record.offset() for record in await watch.take(0)] == [0, 1, 2]
        for offset in range(3, 9):
            watch.hear(big(offset))
        with pytest.raises(WatchEnded) as ended:
            await watch.take(0)
        assert ended.value.why is Ending.SLOW

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


def test_the_page_loads_nothing_from_elsewhere_and_nothing_inline() -> None:
    paths = {route.path for route in ui_routes()}
    assert {"/ui", "/ui/app.js", "/ui/style.css"} <= paths
    assert "'unsafe" not in POLICY
    assert "default-src 'none'" in POLICY
