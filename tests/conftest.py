"""Fixtures that every test may ask for."""

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.stacks import RunningStack, running_stack

# no test is timed: a busy machine must not make a property look false
settings.register_profile("eventstore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("eventstore")


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Commands set logging up for their process, which here is that of all tests."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def stack() -> Iterator[RunningStack]:
    """Real Kafka and CQL servers, shared by all tests: isolate yourself by unique topics and keyspaces."""
    with running_stack() as running:
        yield running
