"""What a look at the retry topics makes of a leader's answer."""

import pytest
from confluent_kafka import KafkaError as Fault
from confluent_kafka import KafkaException

from eventstore.errors import PermanentKafkaError, TransientKafkaError
from eventstore.stream.backlogs import listing_error

pytestmark = pytest.mark.unit


def test_a_partition_that_its_leader_does_not_know_yet_is_looked_at_again() -> None:
    error = listing_error(KafkaException(Fault(Fault.UNKNOWN_TOPIC_OR_PART)), "looking")
    assert isinstance(error, TransientKafkaError)
    assert str(error).startswith("looking: ")


def test_what_will_never_be_answered_stays_so() -> None:
    error = listing_error(KafkaException(Fault(Fault.TOPIC_AUTHORIZATION_FAILED)), "looking")
    assert isinstance(error, PermanentKafkaError)
