"""What every Kafka client of ours is told: the brokers, how to talk to them, where its log goes."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import confluent_kafka

from eventstore.config import KafkaSettings, ProducerSettings
from eventstore.errors import ConfigurationError

Client = TypeVar("Client")

MAX_RECORD_BYTES = 16 * 2**20
"""Largest record that a producer of ours hands to a broker."""

_log = logging.getLogger("librdkafka")
_log.addHandler(logging.NullHandler())  # commands that set up no logging show errors, not the client's retries


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """The base properties of a consumer, producer or admin client, by librdkafka's names.

    `settings.options` is passed through and wins over the others.
    """
    named = {
        "security.protocol": settings.security_protocol.value,
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.sasl_username,
        "sasl.password": settings.sasl_password and settings.sasl_password.get_secret_value(),
        "ssl.ca.location": settings.ssl_ca_location and str(settings.ssl_ca_location),
        "ssl.certificate.location": settings.ssl_certificate_location and str(settings.ssl_certificate_location),
        "ssl.key.location": settings.ssl_key_location and str(settings.ssl_key_location),
    }
    return {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": "eventstore",
        # else librdkafka writes lines of its own format to standard error
        "logger": _log,
        # brokers close idle connections all day
        "log.connection.close": False,
        # librdkafka's default asks the bootstrap servers again, without a pause, for as long as no broker is up: 150 lines
        # of log a second from two workers. Host names are resolved anew at every attempt all the same.
        "metadata.recovery.strategy": "none",
        "reconnect.backoff.max.ms": 2_000,  # and back within that time of a broker's return; its default is 10 s
        **{name: value for name, value in named.items() if value is not None},
        **settings.options,
    }


def producer_config(kafka: KafkaSettings, producer: ProducerSettings) -> dict[str, Any]:
    """The properties of every producer of ours: idempotent, confirmed by all in-sync replicas, bounded.

    These are promises: `kafka.options` does not overrule them.
    """
    return client_config(kafka) | {
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": producer.compression.value,
        "delivery.timeout.ms": round(producer.delivery_timeout * 1_000),
        "linger.ms": round(producer.linger * 1_000),
        "queue.buffering.max.kbytes": -(-producer.queue_bytes // 1_024),
        # the broker's limit for the topic decides, not the client's
        "message.max.bytes": MAX_RECORD_BYTES,
        # what Java producers do by default: one user's events are on one partition whoever published them
        "partitioner": "murmur2_random",
    }


def open_client(kind: Callable[[dict[str, Any]], Client], config: Mapping[str, Any]) -> Client:
    """A consumer, producer or admin client of these properties. Connects in the background, so it raises nothing else.

    Raises:
        ConfigurationError: librdkafka refuses a property.
    """
    try:
        return kind(dict(config))
    except (confluent_kafka.KafkaException, TypeError, ValueError) as error:
        fault = error.args[0]
        shown = fault.str() if isinstance(fault, confluent_kafka.KafkaError) else str(fault)
        raise ConfigurationError(
            f"kafka: {shown}; mend `kafka.*` in the settings (`kafka.options` above all)"
        ) from error
