"""Waking fetchers by credentials must never change how a client logs in."""

from typing import Any

import pytest
from confluent_kafka import Consumer

from eventstore.stream.fetchers import FetcherWaking

pytestmark = pytest.mark.unit


class Told(Consumer):  # type: ignore[misc]
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__({"group.id": "any", "logger": None} | config)
        self.credentials: list[tuple[str, str]] = []

    def set_sasl_credentials(self, username: str, password: str) -> None:
        self.credentials.append((username, password))
        super().set_sasl_credentials(username, password)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({}, [("unused", "unused")]),
        ({"security.protocol": "SSL"}, [("unused", "unused")]),
        ({"security.protocol": "SASL_SSL", "sasl.username": "u", "sasl.password": "p"}, [("u", "p")]),
        ({"security.protocol": "sasl_plaintext", "sasl.mechanism": "OAUTHBEARER"}, []),
        ({"security.protocol": "SASL_PLAINTEXT"}, []),
    ],
)
def test_a_client_is_told_what_it_knows_or_what_it_has_no_use_for(
    config: dict[str, Any], told: list[tuple[str, str]]
) -> None:
    client = Told({})
    FetcherWaking.for_client(config).wake(client)
    assert client.credentials == told
    client.close()
