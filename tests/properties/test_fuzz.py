"""Whatever the bytes: a verdict comes out, the same one from both ways through the rules, and never an exception."""

import pytest

from eventstore.accelerator import Accelerator
from eventstore.events import Reason
from tests.fuzz import survey
from tests.mutations import mutants
from tests.verdicts import WAYS

pytestmark = pytest.mark.properties

RECORDS = 20_000
"""Ten times as many in the fault suite."""


@pytest.mark.parametrize("accelerator", WAYS)
def test_both_ways_come_to_one_verdict_on_mutated_records(accelerator: Accelerator | None) -> None:
    found = survey(seed=5, count=RECORDS, accelerator=accelerator)
    assert sum(found.verdicts.values()) == RECORDS
    assert set(found.reasons) == set(Reason), "the mutations no longer reach every rule"
    assert set(found.verdicts) == {"Admitted", "AdmittedPosts", "Expired", "Rejected"}
    assert found.verdicts["Admitted"] > RECORDS / 10
    assert found.verdicts["AdmittedPosts"] > RECORDS / 50


def test_the_same_seed_makes_the_same_records() -> None:
    assert list(mutants(7, 300)) == list(mutants(7, 300)) != list(mutants(8, 300))
