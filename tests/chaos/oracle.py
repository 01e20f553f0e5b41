"""What must hold after whatever has happened, decided from outside: what Kafka acknowledged, and what is there.

It shares no code with the ingest path: a row is known by a number that its producer put into `properties`, never by the
identity that workers compute. Pure: `tests.chaos.evidence` gathers what it looks at.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

EXAMPLES = 5
LATE_AFTER_SECONDS = 3_600
"""Up to this age a row may be given its whole retention when it is written."""
SLACK_SECONDS = 120
"""From the sorting of a record to its acknowledgement at the longest, and what clocks differ."""


class Fate(Enum):
    """What must become of a record."""

    STORED = "stored"
    EXPIRED = "expired"
    """Older than its retention: no row."""
    REJECTED = "rejected"
    """In the dead-letter topic, and no row."""
    ERASED = "erased"
    """Of an erased user, and from before the erasure: no row."""


class Expected(NamedTuple):
    """One record as its producer made it."""

    number: int
    identity: int
    """The number of the first record with this tenant, message id and time: together they are one row."""
    fate: Fate
    tenant: str
    uid: str
    ts_ms: int
    digest: bytes
    """Of event name, properties and context; of the whole value for what must be rejected."""
    reasons: frozenset[str] = frozenset()
    """Why it may be rejected."""


class Place(NamedTuple):
    topic: str
    partition: int
    offset: int


class Row(NamedTuple):
    """One row as a cluster gave it."""

    cluster: str
    tenant: str
    uid: str
    ts_ms: int
    write_micros: int
    number: int | None
    """None: its properties hold none."""
    digest: bytes
    expires: float | None
    """When it will be gone, in seconds since the epoch; None: never."""


class Letter(NamedTuple):
    """One record of the dead-letter topic."""

    source: Place | None
    """None: its headers do not tell."""
    reason: str
    digest: bytes


Offsets = Mapping[tuple[str, int], int]
"""By topic and partition."""


@dataclass(slots=True)
class Evidence:
    """What is there."""

    rows: list[Row] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    diverted: set[int] = field(default_factory=set)
    """Numbers of the records that wait in divert topics."""
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    """Of the event topic and the divert topics; 0 where nothing was committed."""
    ends: dict[tuple[str, int], int] = field(default_factory=dict)


@dataclass(slots=True)
class Verdict:
    """How many records break each rule; examples tell which."""

    lost: int = 0
    """Acknowledged, and neither stored, expired, in the dead letters nor diverted."""
    doubled: int = 0
    """Rows beyond the first of one tenant, message id and time."""
    foreign: int = 0
    """Rows of another tenant, user or cluster than their record's, or of no record at all."""
    altered: int = 0
    """Rows with other content, event time or write time than their record."""
    misdated: int = 0
    """Rows that live for ever, beyond their retention, or less than that."""
    resurrected: int = 0
    """Rows of records that must have none."""
    unexplained: int = 0
    """Rejects without reason and coordinates, for another reason, with other bytes; dead letters of good records."""
    offsets: int = 0
    """Partitions whose committed offset is beyond the end, or not at it when all work should be done."""
    examples: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not any(self.counts().values())

    def counts(self) -> dict[str, int]:
        names = ("lost", "doubled", "foreign", "altered", "misdated", "resurrected", "unexplained", "offsets")
        return {name: getattr(self, name) for name in names}

    def note(self, rule: str, what: object) -> None:
        count = getattr(self, rule) + 1
        setattr(self, rule, count)
        if count <= EXAMPLES:
            self.examples.append(f"{rule}: {what}")


def judge(
    plan: Mapping[int, Expected],
    acknowledged: Mapping[Place, int],
    homes: Mapping[str, Collection[str]],
    evidence: Evidence,
    retentions: Mapping[str, int],
    *,
    complete: bool = True,
) -> Verdict:
    """Hold everything that is there against everything that was acknowledged.

    Args:
        plan: every record ever handed to Kafka, by its number.
        acknowledged: the number of the record that Kafka confirmed at each place.
        homes: where a tenant's rows may be: one cluster, two while it moves.
        evidence: what is there.
        retentions: how long each cluster keeps rows, in seconds from their event time.
        complete: all work is done, so offsets end at the end of the log. Otherwise only what is below the committed
            offsets is asked for: no commit may have passed an unfinished record.
    """
    verdict = Verdict()
    owed = dict(acknowledged) if complete else _below(acknowledged, evidence.committed)
    present = _check_rows(plan, homes, evidence.rows, verdict)
    _check_expiry(evidence.rows, retentions, verdict)
    present |= {plan[number].identity for number in evidence.diverted if number in plan}
    _check_letters(plan, acknowledged, evidence.letters, verdict)
    _check_lost(plan, owed, present, evidence.letters, verdict)
    _check_offsets(evidence, verdict, complete=complete)
    return verdict


def _below(acknowledged: Mapping[Place, int], committed: Offsets) -> dict[Place, int]:
    return {
        place: number for place, number in acknowledged.items() if place.offset < committed.get(place[:2], 0)
    }  # fmt: skip


def _check_rows(
    plan: Mapping[int, Expected], homes: Mapping[str, Collection[str]], rows: Iterable[Row], verdict: Verdict
) -> set[int]:
    """Gives the identities that have a row where they belong."""
    by_identity: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for row in rows:
        expected = None if row.number is None else plan.get(row.number)
        if expected is None or row[1:3] != expected[3:5] or row.cluster not in homes.get(row.tenant, ()):
            verdict.note("foreign", row)
            continue
        by_identity[expected.identity][row.cluster] += 1
        if by_identity[expected.identity][row.cluster] > 1:
            verdict.note("doubled", row)
        if expected.fate is not Fate.STORED:
            verdict.note("resurrected", f"{expected.fate.value}: {row}")
        elif (row.ts_ms, row.write_micros, row.digest) != (expected.ts_ms, expected.ts_ms * 1_000, expected.digest):
            verdict.note("altered", row)
    return set(by_identity)


def _check_expiry(rows: Iterable[Row], retentions: Mapping[str, int], verdict: Verdict) -> None:
    """A fresh row lives for its retention from when it was written, a late one from its event time."""
    for row in rows:
        due = row.ts_ms / 1_000 + retentions[row.cluster]
        if row.expires is None or not -SLACK_SECONDS <= row.expires - due <= LATE_AFTER_SECONDS + SLACK_SECONDS:
            verdict.note("misdated", row)


def _check_letters(
    plan: Mapping[int, Expected], acknowledged: Mapping[Place, int], letters: Iterable[Letter], verdict: Verdict
) -> None:
    """The same reject may stand there twice: it replays to the same row. In-doubt records are nobody's business."""
    for letter in letters:
        if letter.source is None:
            verdict.note("unexplained", letter)
        elif (number := acknowledged.get(letter.source)) is not None:
            expected = plan[number]
            if letter.reason not in expected.reasons or letter.digest != expected.digest:
                verdict.note("unexplained", f"{expected} became {letter}")


def _check_lost(
    plan: Mapping[int, Expected],
    owed: Mapping[Place, int],
    present: Collection[int],
    letters: Iterable[Letter],
    verdict: Verdict,
) -> None:
    rejected = {letter.source for letter in letters}
    for place, number in owed.items():
        expected = plan[number]
        safe = (
            expected.fate in (Fate.EXPIRED, Fate.ERASED)
            or (expected.fate is Fate.REJECTED and place in rejected)
            or (expected.fate is Fate.STORED and expected.identity in present)
        )
        if not safe:
            verdict.note("lost", f"{place}: {expected}")


def _check_offsets(evidence: Evidence, verdict: Verdict, *, complete: bool) -> None:
    for place, end in evidence.ends.items():
        committed = evidence.committed.get(place, 0)
        if committed > end or (complete and committed != end):
            verdict.note("offsets", f"{place}: committed {committed} of {end}")
