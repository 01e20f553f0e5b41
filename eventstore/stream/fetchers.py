"""Waking the Kafka client's fetch threads, which sleep for up to a second after partitions were paused and resumed.

librdkafka pauses and resumes all partitions in a rebalance. The thread of a broker that finds nothing to fetch meanwhile
sleeps (`rd_kafka_max_block_ms`, not a setting), and the resumption does not wake it; a request to the broker does, but has to
be waited for, and one that is given up takes the connection down with it. What also wakes all threads, at once and without a
byte sent, is to be told the credentials for new connections: so they are told again what they know.
"""

from collections.abc import Mapping
from typing import Any, Self

from confluent_kafka import Consumer


class FetcherWaking:
    """Wakes a client's fetch threads; does nothing where telling credentials could change how it logs in."""

    def __init__(self, credentials: tuple[str, str] | None) -> None:
        self._credentials = credentials

    @classmethod
    def for_client(cls, config: Mapping[str, Any]) -> Self:
        """For a client of these properties."""
        if "sasl.username" in config and "sasl.password" in config:
            return cls((str(config["sasl.username"]), str(config["sasl.password"])))
        if str(config.get("security.protocol", "PLAINTEXT")).upper().startswith("SASL"):
            return cls(None)  # Kerberos, say, would take the user's name from them
        return cls(("unused", "unused"))

    def wake(self, consumer: Consumer) -> None:
        if self._credentials is not None:
            consumer.set_sasl_credentials(*self._credentials)
