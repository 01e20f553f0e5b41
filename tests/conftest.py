"""Fixtures that every test may ask for."""

from collections.abc import Iterator

import pytest

from tests.stacks import RunningStack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """Real Kafka and CQL servers, shared by all tests: isolate yourself by unique topics and keyspaces."""
    with running_stack() as running:
        yield running
