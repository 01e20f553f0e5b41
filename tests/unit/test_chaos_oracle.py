"""The oracle by mutation: it is content with a faultless outcome, and every kind of harm to it is caught."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice

import pytest

from tests.builders import NOW_MS
from tests.chaos.load import HOUR_MS, Mix, Record, records, rejected
from tests.chaos.oracle import Evidence, Expected, Fate, Letter, Place, Row, Verdict, judge

pytestmark = pytest.mark.unit

TOPIC = "events"
HOMES = {"shop": ("c3n",), "news": ("c1n",)}
RETENTIONS = {"c3n": 30 * 86_400, "c1n": 15 * 86_400}
EVENTS = 600


@dataclass(slots=True)
class Outcome:
    """What Kafka acknowledged, and what has become of it."""

    plan: dict[int, Expected] = field(default_factory=dict)
    acknowledged: dict[Place, int] = field(default_factory=dict)
    evidence: Evidence = field(default_factory=Evidence)

    def judge(self, *, complete: bool = True) -> Verdict:
        return judge(self.plan, self.acknowledged, HOMES, self.evidence, RETENTIONS, complete=complete)

    def stored(self) -> Row:
        """A row of a record that was sent only once."""
        identities = [expected.identity for expected in self.plan.values()]
        return next(row for row in self.evidence.rows if identities.count(self.plan[row.number or 0].identity) == 1)


def faultless() -> Outcome:
    """Two partitions; every row where it belongs, every reject in the dead letters, everything committed."""
    outcome = Outcome()
    load = list(islice(records(Mix((("shop", 1.0), ("news", 1.0))), NOW_MS), EVENTS))
    load += [rejected(EVENTS + n, b"shop:u1", b"broken %d" % n, {"malformed"}) for n in range(20)]
    offsets = [0, 0]
    for record in load:
        partition = record.expected.number % 2
        _ingest(outcome, record, Place(TOPIC, partition, offsets[partition]))
        offsets[partition] += 1
    outcome.evidence.committed = {(TOPIC, number): offset for number, offset in enumerate(offsets)}
    outcome.evidence.ends = dict(outcome.evidence.committed)
    return outcome


def _ingest(outcome: Outcome, record: Record, place: Place) -> None:
    expected = record.expected
    outcome.plan[expected.number] = expected
    outcome.acknowledged[place] = expected.number
    seen = {outcome.plan[row.number or 0].identity for row in outcome.evidence.rows}
    if expected.fate is Fate.REJECTED:
        outcome.evidence.letters.append(Letter(place, "malformed", expected.digest))
    elif expected.fate is Fate.STORED and expected.identity not in seen:
        outcome.evidence.rows.append(_row(expected))


def _row(expected: Expected) -> Row:
    (cluster,) = HOMES[expected.tenant]
    return Row(
        cluster, expected.tenant, expected.uid, expected.ts_ms, expected.ts_ms * 1_000, expected.number, expected.digest,
        _expires(cluster, expected.ts_ms),
    )  # fmt: skip


def _expires(cluster: str, ts_ms: int) -> float:
    late = NOW_MS - ts_ms >= HOUR_MS
    return (ts_ms if late else NOW_MS) / 1_000 + RETENTIONS[cluster]


def test_the_load_has_every_kind_of_record() -> None:
    fates = [expected.fate for expected in faultless().plan.values()]
    assert {Fate.STORED, Fate.EXPIRED, Fate.REJECTED} == set(fates)
    identities = [expected.identity for expected in faultless().plan.values()]
    assert len(set(identities)) < len(identities), "no record was sent twice"


def test_a_faultless_outcome_holds() -> None:
    assert faultless().judge().holds
    assert faultless().judge(complete=False).holds


def take_a_row_away(outcome: Outcome) -> None:
    outcome.evidence.rows.remove(outcome.stored())


def add_a_duplicate(outcome: Outcome) -> None:
    outcome.evidence.rows.append(outcome.stored())


def add_the_other_payload_as_a_row(outcome: Outcome) -> None:
    twin = next(
        e for e in outcome.plan.values() if e.identity != e.number and e.digest != outcome.plan[e.identity].digest
    )
    outcome.evidence.rows.append(_row(twin))


def move_to_another_tenant(outcome: Outcome) -> None:
    row = outcome.stored()
    outcome.evidence.rows.remove(row)
    outcome.evidence.rows.append(row._replace(tenant="news" if row.tenant == "shop" else "shop"))


def copy_to_another_tenant(outcome: Outcome) -> None:
    row = outcome.stored()
    outcome.evidence.rows.append(row._replace(tenant="news" if row.tenant == "shop" else "shop"))


def copy_to_another_user(outcome: Outcome) -> None:
    outcome.evidence.rows.append(outcome.stored()._replace(uid="nobody"))


def copy_to_another_cluster(outcome: Outcome) -> None:
    row = outcome.stored()
    other = "c1n" if row.cluster == "c3n" else "c3n"
    outcome.evidence.rows.append(row._replace(cluster=other, expires=_expires(other, row.ts_ms)))


def add_a_row_of_nobody(outcome: Outcome) -> None:
    outcome.evidence.rows.append(outcome.stored()._replace(number=None))


def change_the_content(outcome: Outcome) -> None:
    row = outcome.stored()
    outcome.evidence.rows.remove(row)
    outcome.evidence.rows.append(row._replace(digest=b"other"))


def write_at_another_time(outcome: Outcome) -> None:
    row = outcome.stored()
    outcome.evidence.rows.remove(row)
    outcome.evidence.rows.append(row._replace(write_micros=row.write_micros + 1))


def _give_another_expiry(outcome: Outcome, row: Row, expires: float | None) -> None:
    outcome.evidence.rows.remove(row)
    outcome.evidence.rows.append(row._replace(expires=expires))


def keep_a_row_for_ever(outcome: Outcome) -> None:
    _give_another_expiry(outcome, outcome.stored(), None)


def keep_a_late_row_for_a_whole_retention(outcome: Outcome) -> None:
    late = next(row for row in outcome.evidence.rows if NOW_MS - row.ts_ms > HOUR_MS)
    _give_another_expiry(outcome, late, NOW_MS / 1_000 + RETENTIONS[late.cluster])


def let_a_row_go_too_early(outcome: Outcome) -> None:
    row = outcome.stored()
    _give_another_expiry(outcome, row, row.ts_ms / 1_000 + RETENTIONS[row.cluster] - 3_600)


def store_what_expired(outcome: Outcome) -> None:
    outcome.evidence.rows.append(_row(next(e for e in outcome.plan.values() if e.fate is Fate.EXPIRED)))


def forget_a_reject(outcome: Outcome) -> None:
    outcome.evidence.letters.pop()


def reject_without_coordinates(outcome: Outcome) -> None:
    outcome.evidence.letters[0] = outcome.evidence.letters[0]._replace(source=None)


def reject_for_another_reason(outcome: Outcome) -> None:
    outcome.evidence.letters[0] = outcome.evidence.letters[0]._replace(reason="schema")


def reject_with_other_bytes(outcome: Outcome) -> None:
    outcome.evidence.letters[0] = outcome.evidence.letters[0]._replace(digest=b"other")


def reject_a_good_record(outcome: Outcome) -> None:
    number = outcome.stored().number
    place = next(place for place, acknowledged in outcome.acknowledged.items() if acknowledged == number)
    outcome.evidence.letters.append(Letter(place, "schema", b""))


def commit_one_too_far(outcome: Outcome) -> None:
    outcome.evidence.committed[TOPIC, 1] += 1


def commit_one_too_few(outcome: Outcome) -> None:
    outcome.evidence.committed[TOPIC, 1] -= 1


@pytest.mark.parametrize(
    ("harm", "caught"),
    [
        (take_a_row_away, {"lost"}),
        (add_a_duplicate, {"doubled"}),
        (add_the_other_payload_as_a_row, {"doubled"}),
        (move_to_another_tenant, {"foreign", "lost"}),
        (copy_to_another_tenant, {"foreign"}),
        (copy_to_another_user, {"foreign"}),
        (copy_to_another_cluster, {"foreign"}),
        (add_a_row_of_nobody, {"foreign"}),
        (change_the_content, {"altered"}),
        (write_at_another_time, {"altered"}),
        (keep_a_row_for_ever, {"misdated"}),
        (keep_a_late_row_for_a_whole_retention, {"misdated"}),
        (let_a_row_go_too_early, {"misdated"}),
        (store_what_expired, {"resurrected"}),
        (forget_a_reject, {"lost"}),
        (reject_without_coordinates, {"unexplained", "lost"}),
        (reject_for_another_reason, {"unexplained"}),
        (reject_with_other_bytes, {"unexplained"}),
        (reject_a_good_record, {"unexplained"}),
        (commit_one_too_far, {"offsets"}),
        (commit_one_too_few, {"offsets"}),
    ],
)
def test_every_harm_is_caught_and_named(harm: Callable[[Outcome], None], caught: set[str]) -> None:
    outcome = faultless()
    harm(outcome)
    verdict = outcome.judge()
    assert {rule for rule, count in verdict.counts().items() if count} == caught
    assert verdict.examples


def test_in_mid_flight_only_what_is_committed_is_asked_for() -> None:
    outcome = faultless()
    last = Place(TOPIC, 0, outcome.evidence.committed[TOPIC, 0])
    _ingest(outcome, _good(EVENTS + 100), last)
    outcome.evidence.rows.pop()  # not stored yet
    outcome.evidence.ends[TOPIC, 0] += 1
    assert outcome.judge(complete=False).holds
    outcome.evidence.committed[TOPIC, 0] += 1  # one too far
    assert outcome.judge(complete=False).lost == 1


def test_what_waits_in_a_divert_topic_is_not_lost() -> None:
    outcome = faultless()
    row = outcome.stored()
    outcome.evidence.rows.remove(row)
    assert row.number is not None
    outcome.evidence.diverted.add(row.number)
    assert outcome.judge().holds


def test_the_row_of_a_moving_tenant_may_be_in_either_cluster_but_once_in_each() -> None:
    outcome = faultless()
    row = outcome.stored()
    other = "c1n" if row.cluster == "c3n" else "c3n"
    twin = row._replace(cluster=other, expires=_expires(other, row.ts_ms))
    outcome.evidence.rows.append(twin)
    moving = HOMES | {row.tenant: ("c1n", "c3n")}
    assert judge(outcome.plan, outcome.acknowledged, moving, outcome.evidence, RETENTIONS).holds
    outcome.evidence.rows.append(twin)
    assert judge(outcome.plan, outcome.acknowledged, moving, outcome.evidence, RETENTIONS).doubled == 1


def test_a_row_of_a_record_in_doubt_is_nobody_s_fault() -> None:
    outcome = faultless()
    unheard = _good(EVENTS + 200)
    outcome.plan[unheard.expected.number] = unheard.expected
    assert outcome.judge().holds
    outcome.evidence.rows.append(_row(unheard.expected))
    assert outcome.judge().holds


def test_an_erased_record_must_have_no_row() -> None:
    outcome = faultless()
    row = outcome.stored()
    assert row.number is not None
    outcome.plan[row.number] = outcome.plan[row.number]._replace(fate=Fate.ERASED)
    assert outcome.judge().resurrected == 1
    outcome.evidence.rows.remove(row)
    assert outcome.judge().holds


def test_the_same_reject_may_stand_in_the_dead_letters_twice() -> None:
    outcome = faultless()
    outcome.evidence.letters.append(outcome.evidence.letters[0])
    assert outcome.judge().holds


def _good(number: int) -> Record:
    mix = replace(Mix((("shop", 1.0),)), expired=0.0, again=0.0, other_payload=0.0)
    return next(records(mix, NOW_MS, first=number))
