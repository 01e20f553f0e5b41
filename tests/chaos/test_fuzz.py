"""The long form of tests/properties/test_fuzz.py, and what a reject may cost."""

import gc
from collections.abc import Iterator

import pytest

from eventstore.accelerator import Accelerator
from eventstore.events import Reason
from tests.fuzz import dearest_reject, survey
from tests.verdicts import WAYS

pytestmark = pytest.mark.chaos

RECORDS = 200_000
MOST_SECONDS = 0.001
"""Of CPU, on an idle machine."""


@pytest.mark.parametrize("accelerator", WAYS)
def test_both_ways_come_to_one_verdict_on_two_hundred_thousand_mutated_records(accelerator: Accelerator | None) -> None:
    found = survey(seed=200_000, count=RECORDS, accelerator=accelerator)
    print(f"verdicts {dict(found.verdicts)}, reasons {dict(found.reasons)}")  # noqa: T201 — for the report
    assert sum(found.verdicts.values()) == RECORDS
    assert set(found.reasons) == set(Reason)


@pytest.fixture
def collector_of_a_worker() -> Iterator[None]:
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("collector_of_a_worker")
def test_no_reject_takes_longer_than_a_millisecond() -> None:
    found = dearest_reject(seed=1, count=RECORDS)
    told = (
        f"{found.seconds * 1e6:.0f} us on a machine {found.slowness:.1f} times slower than idle, {found.verdict.reason}"
    )
    print(f"dearest reject: {told}")  # noqa: T201
    assert found.seconds <= MOST_SECONDS * found.slowness, (told, found.verdict.detail[:100], found.record)
