"""Verifying with a store in memory: what is found right, wrong, and mended."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import pytest
from confluent_kafka import Message

from eventstore.events import Coordinates
from eventstore.events.cells import Cells, TableName, table_of, values
from eventstore.events.erasure import Erasures
from eventstore.events.row import Row
from eventstore.ingest.admission import Admission, Admitted, AdmittedPosts, ClockRules
from eventstore.replay.expected import SLACK_SECONDS, ExpectedRow, Found, Stored
from eventstore.replay.judge import ScopedBook
from eventstore.replay.scope import Scope, selection
from eventstore.replay.verify import Finding, Verifier, sampled
from eventstore.store.lookup import PartitionKey, PostKey, RowKey, StoredPost, StoredRow
from eventstore.tenancy import Tier
from tests.builders import DAY_MS, NOW_MS, envelope, registry, row, tier

pytestmark = pytest.mark.unit

NOW_MICROS = NOW_MS * 1_000
T30 = tier()
RETENTION = T30.retention_seconds
RULES = ClockRules()


def stored(of: Row, ttl_seconds: int | None = RETENTION) -> StoredRow:
    return StoredRow(of.event, of.properties, of.context, of.write_micros, ttl_seconds)


def record(offset: int, key: bytes = b"shop:u1", value: bytes | None = None) -> Message:
    body = value or envelope(timestamp=NOW_MS, message_id=f"m-{offset}", properties={"offset": offset})
    return Message(topic="events", partition=1, offset=offset, key=key, value=body)


def found(expected: Row, there: StoredRow | None, now_micros: int = NOW_MICROS, *, erased: bool = False) -> Found:
    rows = {} if there is None else {key_of(expected): there}
    return ExpectedRow(record(7), expected, T30, erased).found(Stored(rows, {}), now_micros, RULES)


def test_a_row_is_right_only_with_all_its_columns_and_its_write_time() -> None:
    assert found(row(), stored(row())) is Found.IDENTICAL
    for change in ({"event": "x"}, {"properties": b"{}"}, {"context": b'{"a":1}'}):
        assert found(row(), stored(row(**change))) is Found.DIFFERENT
    assert found(row(), stored(row())._replace(write_micros=row().write_micros - 1)) is Found.DIFFERENT


def test_a_newer_write_is_right_only_if_an_event_of_the_same_millisecond_can_have_made_it() -> None:
    newer = stored(row())._replace(event="newer")
    first = row().write_micros
    assert found(row(), newer._replace(write_micros=first + 999)) is Found.SUPERSEDED
    for foreign in (first + 1_000, first + 86_400_000_000):
        assert found(row(), newer._replace(write_micros=foreign)) is Found.OVERWRITTEN
    same_but_rewritten = stored(row())._replace(write_micros=first + 1_000)
    assert found(row(), same_but_rewritten) is Found.OVERWRITTEN


def test_a_row_that_is_not_there_is_missing_unless_its_time_is_up() -> None:
    assert found(row(), None) is Found.MISSING
    expiry = row().write_micros + RETENTION * 1_000_000
    assert found(row(), None, expiry - (SLACK_SECONDS + 1) * 1_000_000) is Found.MISSING
    assert found(row(), None, expiry - SLACK_SECONDS * 1_000_000) is Found.EXPIRED


@pytest.mark.parametrize(
    ("age", "ttl_seconds", "right"),
    [
        (0, RETENTION, True),
        (0, None, False),
        (0, RETENTION + SLACK_SECONDS + 1, False),
        (0, RETENTION // 2, False),
        (10 * 86_400, RETENTION - 10 * 86_400, True),
        (10 * 86_400, RETENTION - 10 * 86_400 + 3_600, True),
        (10 * 86_400, RETENTION, False),
        (10 * 86_400, 1, False),
        (-86_000, RETENTION, True),
        (-86_000, RETENTION + 86_000, False),
        (-40_000, RETENTION - 46_000, True),
    ],
)
def test_a_row_must_expire_when_its_retention_says(age: int, ttl_seconds: int | None, *, right: bool) -> None:
    then = row(write_micros=NOW_MICROS - age * 1_000_000, ts_ms=NOW_MS - age * 1_000)
    assert found(then, stored(then, ttl_seconds)) is (Found.IDENTICAL if right else Found.LIFETIME)
    newer = stored(then, ttl_seconds)._replace(write_micros=then.write_micros + 1)
    assert found(then, newer) is (Found.SUPERSEDED if right else Found.LIFETIME)


def test_an_erased_row_must_not_be_there_whatever_it_says() -> None:
    assert found(row(), None, erased=True) is Found.ERASED
    assert found(row(), stored(row()), erased=True) is Found.RESURRECTED
    assert found(row(), stored(row(event="x"), None), erased=True) is Found.RESURRECTED


class InMemory:
    """A store, and what has been asked of it."""

    def __init__(self) -> None:
        self.rows: dict[RowKey, StoredRow] = {}
        self.posts: dict[PostKey, StoredPost] = {}
        self.broken = False
        self.on_find: Callable[[], None] = lambda: None

    def find(self, keys: Iterable[RowKey]) -> Mapping[RowKey, StoredRow]:
        self.on_find()
        return {key: self.rows[key] for key in keys if key in self.rows}

    def find_posts(self, keys: Iterable[PostKey]) -> Mapping[PostKey, StoredPost]:
        return {key: self.posts[key] for key in keys if key in self.posts}

    async def store(self, of: Tier, rows: Sequence[Cells]) -> None:
        assert of == T30
        for cells in () if self.broken else rows:
            if table_of(cells) is TableName.EVENTS:
                row = row_of(cells)
                self.rows[key_of(row)] = stored(row)
            else:
                uid, tenant, bid, post, at, _, ttl = values(cells)
                self.hold_post(
                    PostKey(PartitionKey(uid.decode(), tenant.decode(), number(bid)), post.decode()),
                    number(at),
                    number(ttl),
                )

    def hold_post(self, key: PostKey, at_ms: int, ttl_seconds: int | None) -> None:
        there = self.posts.get(key, StoredPost(at_ms, at_ms, None))
        first, last = there.first_ms or at_ms, there.last_ms or at_ms
        self.posts[key] = StoredPost(min(first, at_ms), max(last, at_ms), ttl_seconds)


def number(cell: bytes) -> int:
    return int.from_bytes(cell, "big", signed=True)


def row_of(cells: Cells) -> Row:
    uid, tenant, bid, ts, eid, event, properties, context, micros = values(cells)[:9]
    return Row(
        uid.decode(),
        tenant.decode(),
        number(bid),
        number(ts),
        eid,
        event.decode(),
        properties,
        context,
        number(micros),
        None,
    )


def key_of(of: Row) -> RowKey:
    return RowKey(PartitionKey(of.uid, of.tenant, of.bid), of.ts_ms, of.eid)


class World:
    def __init__(self, *, repairing: bool = False, fraction: float = 1.0, scope: Scope | None = None) -> None:
        self.store = InMemory()
        self.findings: list[Finding] = []
        self.erasures = Erasures({b"shop:erased": NOW_MICROS})
        self.judge = ScopedBook(
            Admission(registry(), NOW_MICROS, RULES, self.erasures), selection(scope or Scope(), registry())
        )
        self.verifier = Verifier(
            lambda: self.judge,
            {"c30": self.store},
            self.findings.append,
            self.store.store if repairing else None,
            fraction,
        )

    def check(self, *records: Message) -> Counter[str]:
        asyncio.run(self.verifier.check(records))
        return self.verifier.counts

    def hold(self, *records: Message) -> None:
        for each in records:
            admitted = self.judge.but_for_erasures(each)
            if isinstance(admitted, AdmittedPosts):
                for seen in admitted.impressions:
                    key = PostKey(PartitionKey(seen.uid, seen.tenant, seen.bid), seen.post)
                    self.store.hold_post(key, seen.seen_micros // 1_000, seen.ttl_seconds)
            else:
                assert isinstance(admitted, Admitted)
                self.store.rows[key_of(admitted.row)] = stored(admitted.row)


def test_every_record_is_accounted_for_by_what_the_rules_say_of_it() -> None:
    world = World(scope=Scope(events=("product_viewed",)))
    world.hold(record(1))
    counts = world.check(
        record(1),
        record(2, value=envelope(timestamp=NOW_MS - 31 * DAY_MS)),
        record(3, b"shop:erased", envelope(uid="erased", timestamp=NOW_MS)),
        record(4, value=b"not an event"),
        record(5, value=envelope(event="other")),
    )
    assert counts == {"records": 5, "identical": 1, "expired": 1, "erased": 1, "malformed": 1, "skipped": 1}
    assert world.verifier.wrong == 0


def test_what_is_missing_is_told_by_its_coordinates() -> None:
    world = World()
    world.hold(record(1))
    world.check(record(1), record(2))
    (finding,) = world.findings
    assert (finding.what, finding.source, finding.cluster) == (Found.MISSING, "events/1/2", "c30")
    assert (finding.tenant, finding.uid, finding.timestamp, finding.repaired) == ("shop", "u1", NOW_MS, False)
    assert world.verifier.wrong == 1


def test_a_repair_stores_just_what_is_wrong_and_looks_again() -> None:
    world = World(repairing=True)
    world.hold(record(1))
    before = dict(world.store.rows)
    world.check(record(1), record(2))
    assert [each.repaired for each in world.findings] == [True]
    assert world.verifier.wrong == 0
    assert len(world.store.rows) == 2
    assert before.items() <= world.store.rows.items()


def erased(offset: int) -> Message:
    return record(offset, b"shop:erased", envelope(uid="erased", timestamp=NOW_MS, message_id=f"m-{offset}"))


def test_what_is_left_of_an_erased_user_is_told_and_no_repair_stores_it() -> None:
    world = World(repairing=True)
    world.hold(erased(1))
    counts = world.check(erased(1), erased(2), record(3))
    assert {each.source: each.what for each in world.findings} == {"events/1/1": "resurrected", "events/1/3": "missing"}
    assert counts == {"records": 3, "erased": 1, "resurrected": 1, "missing": 1, "repaired": 1}
    assert world.verifier.wrong == 1


def test_a_user_who_is_erased_while_others_are_looked_for_is_not_missing_and_not_stored_again() -> None:
    world = World(repairing=True)
    world.store.on_find = lambda: world.erasures.hear(b"shop:u1", NOW_MICROS)
    assert world.check(record(1)) == {"records": 1, "erased": 1}
    assert not world.store.rows


def test_a_row_that_arrives_while_it_is_looked_for_is_right() -> None:
    world = World()
    world.store.on_find = lambda: setattr(world.store, "on_find", lambda: world.hold(record(1)))
    assert world.check(record(1)) == {"records": 1, "identical": 1}
    assert not world.findings


def test_an_overwritten_row_is_told_and_left_alone() -> None:
    world = World(repairing=True)
    world.hold(record(1))
    ((key, there),) = world.store.rows.items()
    world.store.rows[key] = there._replace(event="other", write_micros=NOW_MICROS + 5_000_000)
    assert world.check(record(1)) == {"records": 1, "overwritten": 1, "repaired": 0}
    assert [(each.what, each.repaired) for each in world.findings] == [("overwritten", False)]
    assert world.store.rows[key].event == "other"


def test_a_repair_that_does_not_help_is_not_called_one() -> None:
    world = World(repairing=True)
    world.store.broken = True
    world.check(record(1))
    assert [each.repaired for each in world.findings] == [False]
    assert world.verifier.wrong == 1


def test_of_two_records_with_one_identity_either_may_have_won() -> None:
    first, second = (
        record(n, value=envelope(timestamp=NOW_MS, message_id="same", properties={"n": n})) for n in (1, 2)
    )
    world = World()
    world.hold(second)
    assert world.check(first, second) == {"records": 2, "identical": 1, "superseded": 1}


def seen(offset: int, *posts: str, uid: str = "u1", at: int = NOW_MS) -> Message:
    body = msgspec.json.encode({"tenant": "shop", "uid": uid, "at": at, "posts": posts})
    return record(offset, f"shop:{uid}".encode(), body)


def test_impressions_are_right_if_their_rows_tell_of_them() -> None:
    world = World()
    world.hold(seen(1, "p1", "p2"), seen(2, "p1", at=NOW_MS - 7), seen(3, "p1", at=NOW_MS + 7))
    assert world.check(seen(1, "p1", "p2"), seen(2, "p1", at=NOW_MS - 7), seen(4, "p1", at=NOW_MS + 6)) == {
        "records": 3,
        "identical": 3,
    }


def test_impressions_are_as_the_worst_of_their_rows_and_a_repair_stores_them_again() -> None:
    world = World(repairing=True)
    world.hold(seen(1, "p1", "p2"))
    counts = world.check(seen(1, "p1", "p2"), seen(2, "p1", "p3"), seen(3, "p2", at=NOW_MS - 1))
    assert counts == {"records": 3, "identical": 1, "missing": 1, "different": 1, "repaired": 2}
    assert [(each.what, each.uid, each.eid, each.timestamp) for each in world.findings] == [
        ("missing", "u1", "", NOW_MS), ("different", "u1", "", NOW_MS - 1),
    ]  # fmt: skip
    assert world.verifier.wrong == 0


def test_a_row_of_impressions_that_never_expires_is_told() -> None:
    world = World()
    world.hold(seen(1, "p1"))
    world.store.posts = {key: there._replace(ttl_seconds=None) for key, there in world.store.posts.items()}
    assert world.check(seen(1, "p1")) == {"records": 1, "lifetime": 1, "repaired": 0}


def test_what_an_erased_user_has_seen_must_not_be_told_but_what_was_seen_since_may() -> None:
    world = World()
    old, new = (seen(n, "p1", uid="erased", at=NOW_MS + n) for n in (-5, 5))
    world.hold(new)
    assert world.check(old, new) == {"records": 2, "erased": 1, "identical": 1}
    world.hold(old)
    assert [world.check(old)["resurrected"], world.findings[0].what] == [1, "resurrected"]


def test_a_first_time_that_an_erasure_has_shadowed_is_not_missed() -> None:
    world = World()
    world.hold(seen(1, "p1"))
    world.store.posts = {key: there._replace(first_ms=None) for key, there in world.store.posts.items()}
    assert world.check(seen(1, "p1")) == {"records": 1, "identical": 1}


def test_a_sample_is_the_same_for_everybody_and_of_about_the_size_asked_for() -> None:
    chosen = [n for n in range(10_000) if sampled(Coordinates("events", 0, n), 0.1)]
    assert 800 < len(chosen) < 1_200
    world = World(fraction=0.1)
    counts = world.check(*(record(n) for n in range(200)))
    assert counts["not sampled"] + counts["missing"] == counts["records"] == 200
    assert {each.source for each in world.findings} == {
        f"events/1/{n}" for n in range(200) if sampled(Coordinates("events", 1, n), 0.1)
    }


def test_a_finding_is_json_for_scripts() -> None:
    world = World()
    world.check(record(1))
    assert msgspec.to_builtins(world.findings[0])["what"] == "missing"
