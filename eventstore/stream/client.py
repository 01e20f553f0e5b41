"""What every Kafka client of ours is told: the brokers, how to talk to them, where its log goes."""

import logging
from typing import Any

from eventstore.config import KafkaSettings


def client_config(settings: KafkaSettings) -> dict[str, Any]:
    """librdkafka's base properties for a consumer, producer or admin client.

    `settings.options` is passed through and wins over what we set, so an operator can always say otherwise.
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
        "logger": logging.getLogger("librdkafka"),
        **{name: value for name, value in named.items() if value is not None},
        **settings.options,
    }
