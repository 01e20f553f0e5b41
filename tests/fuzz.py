"""Mutated records through both ways of the rules: what came out, and what the dearest verdict cost."""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from time import thread_time

from eventstore.events import Reason, Rejected
from eventstore.ingest.admission import Admission
from eventstore.ingest.express import Express, first_place
from tests.mutations import REGISTRY, Record, mutants
from tests.verdicts import NOW_MICROS, RULES, assert_the_same

CHUNK = 500
WORTH_A_SECOND_LOOK_SECONDS = 0.0004
LOOKS = 100


@dataclass(slots=True)
class Outcomes:
    verdicts: Counter[str] = field(default_factory=Counter)
    """By kind: Admitted, Expired, Erased, Rejected."""
    reasons: Counter[Reason] = field(default_factory=Counter)


def survey(seed: int, count: int) -> Outcomes:
    """Every mutant gets the same verdict from both ways, cold and warm; fails with the first record that does not."""
    found = Outcomes()
    express = Express(RULES)
    source = mutants(seed, count)
    while records := list(islice(source, CHUNK)):
        try:
            chunk = [record.message(offset) for offset, record in enumerate(records)]
            assert_the_same(express, chunk, REGISTRY)
            assert_the_same(express, chunk, REGISTRY)  # with every sender known
        except Exception as failure:
            raise AssertionError(f"seed {seed}: {_culprit(records)!r}") from failure
        admission = Admission(REGISTRY, NOW_MICROS, RULES)
        for message in chunk:
            verdict = admission.verdict(message.value(), message.key(), partial(first_place, message))
            found.verdicts[type(verdict).__name__] += 1
            if isinstance(verdict, Rejected):
                found.reasons[verdict.reason] += 1
    return found


def _culprit(records: list[Record]) -> Record | list[Record]:
    """The record that fails alone, if one does."""
    for record in records:
        try:
            assert_the_same(Express(RULES), [record.message(0)], REGISTRY)
        except Exception:  # noqa: BLE001 — that is the one
            return record
    return records


def dearest_reject(seed: int, count: int) -> tuple[float, Rejected, Record]:
    """CPU seconds of the reject that costs most, at the best of several looks, because a machine has other things to do."""
    admission = Admission(REGISTRY, NOW_MICROS, RULES)
    dearest = (0.0, Rejected(Reason.EMPTY, ""), Record(None, None))
    for record in mutants(seed, count):
        message = record.message(0)
        cost, verdict = _timed(admission, message)
        if isinstance(verdict, Rejected) and cost > max(WORTH_A_SECOND_LOOK_SECONDS, dearest[0]):
            cost = min(cost, *(_timed(admission, message)[0] for _ in range(LOOKS)))
            dearest = max(dearest, (cost, verdict, record), key=lambda each: each[0])
    return dearest


def _timed(admission: Admission, message: object) -> tuple[float, object]:
    start = thread_time()
    verdict = admission.verdict(message.value(), message.key(), partial(first_place, message))  # type: ignore[attr-defined]
    return thread_time() - start, verdict
