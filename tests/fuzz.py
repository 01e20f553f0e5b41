"""Mutated records through both ways of the rules: what came out, and what the dearest verdict cost."""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from time import thread_time

import orjson

from eventstore.accelerator import Accelerator
from eventstore.events import Reason, Rejected
from eventstore.ingest.admission import Admission
from eventstore.ingest.express import Express, first_place
from tests.mutations import REGISTRY, Record, mutants
from tests.verdicts import NOW_MICROS, RULES, assert_the_same

CHUNK = 500
WORTH_A_SECOND_LOOK_SECONDS = 0.0004
LOOKS = 100
YARDSTICK = b"[" + b"[]," * 10_000 + b"[]]"
YARDSTICK_SECONDS = 0.00045
"""What reading that costs on an idle machine, one of the slower kind."""


@dataclass(slots=True)
class Outcomes:
    verdicts: Counter[str] = field(default_factory=Counter)
    """By kind: Admitted, Expired, Erased, Rejected."""
    reasons: Counter[Reason] = field(default_factory=Counter)


def survey(seed: int, count: int, accelerator: Accelerator | None) -> Outcomes:
    """Every mutant gets the same verdict from both ways, cold and warm; fails with the first record that does not."""
    found = Outcomes()
    express = Express(RULES, accelerator=accelerator)
    source = mutants(seed, count)
    while records := list(islice(source, CHUNK)):
        try:
            chunk = [record.message(offset) for offset, record in enumerate(records)]
            assert_the_same(express, chunk, REGISTRY)
            assert_the_same(express, chunk, REGISTRY)  # with every sender known
        except Exception as failure:
            raise AssertionError(f"seed {seed}: {_culprit(records, accelerator)!r}") from failure
        admission = Admission(REGISTRY, NOW_MICROS, RULES)
        for message in chunk:
            verdict = admission.verdict(message.value(), message.key(), partial(first_place, message))
            found.verdicts[type(verdict).__name__] += 1
            if isinstance(verdict, Rejected):
                found.reasons[verdict.reason] += 1
    return found


def _culprit(records: list[Record], accelerator: Accelerator | None) -> Record | list[Record]:
    """The record that fails alone, cold or warm, if one does."""
    for record in records:
        express = Express(RULES, accelerator=accelerator)
        try:
            assert_the_same(express, [record.message(0)], REGISTRY)
            assert_the_same(express, [record.message(0)], REGISTRY)
        except Exception:  # noqa: BLE001 — that is the one
            return record
    return records


@dataclass(frozen=True, slots=True)
class Dearest:
    """The reject that costs most."""

    seconds: float
    """Of CPU, at the best of many looks, because a machine has other things to do."""
    slowness: float
    """How many times slower the machine was in the same moments than when it was idle; at least 1."""
    verdict: Rejected
    record: Record


def dearest_reject(seed: int, count: int) -> Dearest:
    admission = Admission(REGISTRY, NOW_MICROS, RULES)
    dearest = Dearest(0.0, 1.0, Rejected(Reason.EMPTY, ""), Record(None, None))
    for record in mutants(seed, count):
        message = record.message(0)
        cost, verdict = _timed(admission, message)
        if isinstance(verdict, Rejected) and cost > max(WORTH_A_SECOND_LOOK_SECONDS, dearest.seconds):
            looks = [(_timed(admission, message)[0], _yardstick()) for _ in range(LOOKS)]
            cost, yardstick = (min(times) for times in zip(*looks, strict=True))
            if cost > dearest.seconds:
                dearest = Dearest(cost, max(1.0, yardstick / YARDSTICK_SECONDS), verdict, record)
    return dearest


def _yardstick() -> float:
    start = thread_time()
    orjson.loads(YARDSTICK)
    return thread_time() - start


def _timed(admission: Admission, message: object) -> tuple[float, object]:
    start = thread_time()
    verdict = admission.verdict(message.value(), message.key(), partial(first_place, message))  # type: ignore[attr-defined]
    return thread_time() - start, verdict
