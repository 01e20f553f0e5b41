"""The verdicts of both ways through the rules, in one form, so that they can be compared."""

from collections import Counter, defaultdict
from functools import partial

from confluent_kafka import Message

from eventstore.accelerator import ACCELERATOR
from eventstore.events import Rejected
from eventstore.events.cells import encode, routing_key
from eventstore.events.erasure import Erasures
from eventstore.events.impressions import encode_impression
from eventstore.ingest.admission import Admission, Admitted, AdmittedPosts, ClockRules, Erased
from eventstore.ingest.express import Express, Sorted, first_place
from eventstore.stream.chunk import Chunk, Member
from eventstore.tenancy import Registry
from tests.builders import NOW_MS

NOW_MICROS = NOW_MS * 1000
RULES = ClockRules()
WAYS = [None] if ACCELERATOR is None else [None, ACCELERATOR]
"""Without the accelerator, and with it where it is built."""


def by_the_book(
    chunk: list[Message], of: Registry, erasures: Erasures
) -> tuple[dict[str, Counter[bytes]], list[tuple[Rejected, int]], Counter[str], int]:
    admission = Admission(of, NOW_MICROS, RULES, erasures)
    rows: dict[str, Counter[bytes]] = defaultdict(Counter)
    rejects: list[tuple[Rejected, int]] = []
    expired: Counter[str] = Counter()
    erased = 0
    for record in chunk:
        verdict = admission.verdict(record.value(), record.key(), partial(first_place, record))
        if isinstance(verdict, Admitted):
            rows[verdict.tier.cluster.name][encode(verdict.row)] += 1
        elif isinstance(verdict, AdmittedPosts):
            for impression in verdict.impressions:
                rows[verdict.tier.cluster.name].update(encode_impression(impression))
        elif isinstance(verdict, Rejected):
            rejects.append((verdict, record.offset()))
        elif isinstance(verdict, Erased):
            erased += 1
        else:
            expired[verdict.tier.name] += 1
    return dict(rows), rejects, expired, erased


def flat(found: Sorted) -> dict[str, Counter[bytes]]:
    rows = {name: Counter(cells for batch in batches for cells in batch) for name, batches in found.batches.items()}
    return {name: counted for name, counted in rows.items() if counted}


def assert_the_same(express: Express, chunk: list[Message], of: Registry, erasures: Erasures | None = None) -> None:
    found = express.sort(Chunk("events", 1, chunk, 0, Member()), of, NOW_MICROS)
    rows, rejects, expired, erased = by_the_book(chunk, of, erasures or Erasures())
    assert flat(found) == rows
    assert [(rejected, record.offset()) for rejected, record in found.rejects] == rejects
    assert found.expired == expired
    assert found.erased == erased
    for batches in found.batches.values():
        for batch in batches:
            assert len({routing_key(cells) for cells in batch}) == 1
