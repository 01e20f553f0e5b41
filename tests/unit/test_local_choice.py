"""Which servers the tests themselves run against."""

from pathlib import Path

import pytest

from tests.stacks import RunningStack, running_stack

pytestmark = pytest.mark.unit


def test_external_servers_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_STACK", "external")
    monkeypatch.setenv("EVENTSTORE_KAFKA__BOOTSTRAP_SERVERS", "kafka-1:9092")
    monkeypatch.setenv("EVENTSTORE_REGISTRY", "elsewhere.yaml")
    with running_stack() as stack:
        assert stack == RunningStack("kafka-1:9092", Path("elsewhere.yaml"))


def test_an_unknown_choice_names_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_STACK", "docker")
    with pytest.raises(ValueError, match="expected one of local, containers, external, got 'docker'"), running_stack():
        pass
