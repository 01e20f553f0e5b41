"""docs/journey.md names real code."""

import ast
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
NAMES = re.findall(r"`((?:eventstore|workers)/[\w/]+\.py):([\w.]+)`", (ROOT / "docs/journey.md").read_text("utf-8"))


def test_the_journey_names_code() -> None:
    assert len(NAMES) > 20


@pytest.mark.parametrize(("path", "name"), NAMES, ids=[f"{path}:{name}" for path, name in NAMES])
def test_what_the_journey_names_exists(path: str, name: str) -> None:
    body: list[ast.stmt] = ast.parse((ROOT / path).read_text("utf-8")).body
    for part in name.split("."):
        found = next((node for node in body if getattr(node, "name", None) == part), None)
        assert found is not None, f"{path} has no {name}"
        body = getattr(found, "body", [])
