"""Verifying with a store in memory: what is found right, wrong, and mended."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec
import pytest
from confluent_kafka import Message

from eventstore.events import Coordinates
from eventstore.events.erasure import Erasures
from eventstore.events.row import Row
from eventstore.ingest.admission import Admission, Admitted, ClockRules
from eventstore.replay.judge import ScopedBook
from eventstore.replay.scope import Scope, selection
from eventstore.replay.verify import (
    SLACK_SECONDS,
    Expected,
    Finding,
    Found,
    Verifier,
    compare,
    sampled,
)
from eventstore.store.lookup import PartitionKey, RowKey, StoredRow
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
    return compare(Expected(record(7), expected, T30, erased), there, now_micros, RULES)


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
        self.broken = False
        self.on_find: Callable[[], None] = lambda: None

    def find(self, keys: Iterable[RowKey]) -> Mapping[RowKey, StoredRow]:
        self.on_find()
        return {key: self.rows[key] for key in keys if key in self.rows}

    async def store(self, of: Tier, rows: Sequence[Row]) -> None:
        assert of == T30
        if not self.broken:
            self.rows |= {key_of(each): stored(each) for each in rows}


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
