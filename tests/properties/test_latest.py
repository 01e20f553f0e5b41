"""In whatever order and chunks events come: of every listed name the store is left with the user's newest."""

import json
from collections import Counter
from typing import NamedTuple
from uuid import UUID

import pytest
from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from eventstore.accelerator import ACCELERATOR, Accelerator
from eventstore.events.cells import Batch, Cells, TableName, routing_key, table_of, values, write_time
from eventstore.ingest.admission import ClockRules
from eventstore.ingest.express import Express, Sorted
from eventstore.stream.chunk import Chunk, Member
from eventstore.tenancy import Tenant
from tests.builders import DAY_MS, NOW_MS, envelope, registry, tier

pytestmark = pytest.mark.properties

REGISTRY = registry(Tenant("shop", tier(), latest=("viewed", "größe")), Tenant("forum", tier()))
ways = st.sampled_from([None, *filter(None, [ACCELERATOR])])


class Sent(NamedTuple):
    tenant: str
    uid: str
    event: str
    at_ms: int
    number: int

    @property
    def eid(self) -> UUID:
        return UUID(int=self.number + 1)

    @property
    def place(self) -> tuple[bytes, bytes]:
        return self.uid.encode(), self.event.encode()

    def message(self, offset: int) -> Message:
        value = envelope(
            tenant=self.tenant, uid=self.uid, event=self.event, timestamp=self.at_ms, message_id=str(self.eid),
            properties={"number": self.number},
        )  # fmt: skip
        key = f"{self.tenant}:{self.uid}".encode()
        return Message(
            topic="events", partition=1, offset=offset, key=key, value=value, headers=None, timestamp=(1, NOW_MS)
        )


@st.composite
def loads(draw: st.DrawFn) -> list[list[Sent]]:
    """Chunks: fresh and late events of several buckets, some at the same time."""
    ages = st.sampled_from([0, 1, 1, 3_000, DAY_MS, 9 * DAY_MS, 29 * DAY_MS])
    names = st.sampled_from(["viewed", "größe", "other"])
    draws = st.tuples(st.sampled_from(["shop", "shop", "forum"]), st.sampled_from(["u1", "größe"]), names, ages)
    sent = [Sent(tenant, uid, name, NOW_MS - age, number)
            for number, (tenant, uid, name, age) in enumerate(draw(st.lists(draws, max_size=24)))]  # fmt: skip
    cut = draw(st.integers(0, len(sent)))
    return [sent[:cut], sent[cut:]]


def sort(express: Express, sent: list[Sent]) -> Sorted:
    chunk = Chunk("events", 1, [each.message(offset) for offset, each in enumerate(sent)], 0, Member())
    return express.sort(chunk, REGISTRY, NOW_MS * 1_000)


def latest(found: Sorted) -> list[Batch]:
    return [batch for batch in found.batches.get("c30", []) if table_of(batch[0]) is TableName.LATEST]


def item(cells: Cells) -> list[bytes]:
    """ts, eid, event, properties, context."""
    return values(b"\0\0" + values(cells)[3])


@given(load=loads(), way=ways, backwards=st.booleans())
def test_the_newest_wins_in_any_order(*, load: list[list[Sent]], way: Accelerator | None, backwards: bool) -> None:
    express = Express(ClockRules(), accelerator=way)
    stored: dict[tuple[bytes, bytes], Cells] = {}
    for sent in load[::-1] if backwards else load:
        for batch in latest(sort(express, sent)):
            assert len({routing_key(cells) for cells in batch}) == 1
            for cells in batch:
                uid, tenant, name, _ = values(cells)[:4]
                assert tenant == b"shop"
                stored[uid, name] = max(stored.get((uid, name), cells), cells, key=write_time)
    listed = [each for sent in load for each in sent if each.tenant == "shop" and each.event != "other"]
    newest = {place: max(each.at_ms for each in listed if each.place == place) for place in {e.place for e in listed}}
    assert stored.keys() == newest.keys()
    by_eid = {each.eid.bytes: each for each in listed}
    for place, cells in stored.items():
        ts, eid, name, properties, context = item(cells)
        of = by_eid[eid]
        assert (of.place, of.at_ms) == (place, newest[place])
        assert (int.from_bytes(ts, "big"), int.from_bytes(write_time(cells), "big")) == (of.at_ms, of.at_ms * 1_000)
        assert (name, json.loads(properties), context) == (place[1], {"number": of.number}, b"{}")


@given(loads(), ways)
def test_a_group_has_one_row_a_name_that_lives_as_long_as_the_events_own(
    load: list[list[Sent]], way: Accelerator | None
) -> None:
    express = Express(ClockRules(), accelerator=way)
    for sent in load:
        found = sort(express, sent)
        rows = [cells for batch in latest(found) for cells in batch]
        for batch in latest(found):
            assert len({values(cells)[2] for cells in batch}) == len(batch)
        events = {
            values(c)[4]: c for b in found.batches.get("c30", []) if table_of(b[0]) is TableName.EVENTS for c in b
        }
        assert len(events) == len(sent)
        assert found.tenants == Counter(each.tenant for each in sent)
        for cells in rows:
            of = values(events[item(cells)[1]])
            assert item(cells) == of[3:8]
            assert values(cells)[4:] == of[8:]
