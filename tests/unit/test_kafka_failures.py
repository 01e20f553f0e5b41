import confluent_kafka
import pytest

from eventstore.config import KafkaSettings, ProducerSettings
from eventstore.errors import ConfigurationError, PermanentKafkaError, TransientKafkaError
from eventstore.stream.client import client_config, open_client, producer_config
from eventstore.stream.failures import PERMANENT, TRANSIENT, kafka_error, mapped

pytestmark = pytest.mark.unit

CODES = {
    name: code
    for name in dir(confluent_kafka.KafkaError)
    if name.replace("_", "").isupper() and isinstance(code := getattr(confluent_kafka.KafkaError, name), int)
}


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_every_code_of_the_client_is_one_of_ours_in_one_line(code: int) -> None:
    found = kafka_error(confluent_kafka.KafkaError(code), "publishing to events")
    assert type(found) is (TransientKafkaError if code in TRANSIENT else PermanentKafkaError)
    assert str(found).startswith("publishing to events: ")
    assert "\n" not in str(found)


def test_every_code_of_the_client_is_mapped_on_purpose() -> None:
    """A code that a newer client brings fails here, until somebody has thought about it."""
    assert len(CODES) > 150, "the walk has lost its way"
    assert set(CODES.values()) == TRANSIENT | PERMANENT
    assert not TRANSIENT & PERMANENT


def test_the_walk_knows_every_code_that_the_client_can_put_into_words() -> None:
    told = {code for code in range(-300, 300) if not confluent_kafka.KafkaError(code).str().startswith("Err-")}
    assert told == set(CODES.values())


def test_a_code_of_the_future_is_permanent() -> None:
    assert type(kafka_error(confluent_kafka.KafkaError(9_999), "x")) is PermanentKafkaError


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("_ALL_BROKERS_DOWN", TransientKafkaError),
        ("_MSG_TIMED_OUT", TransientKafkaError),
        ("NOT_ENOUGH_REPLICAS", TransientKafkaError),
        ("ILLEGAL_GENERATION", TransientKafkaError),
        ("UNKNOWN_TOPIC_OR_PART", PermanentKafkaError),
        ("TOPIC_AUTHORIZATION_FAILED", PermanentKafkaError),
        ("MSG_SIZE_TOO_LARGE", PermanentKafkaError),
        ("PRODUCER_FENCED", PermanentKafkaError),
        ("_FATAL", PermanentKafkaError),
    ],
)
def test_what_may_pass_with_time_is_told_from_what_never_will(code: str, kind: type[Exception]) -> None:
    assert type(kafka_error(confluent_kafka.KafkaError(CODES[code]), "x")) is kind


def test_a_fatal_error_is_permanent_whatever_its_code() -> None:
    error = confluent_kafka.KafkaError(CODES["_MSG_TIMED_OUT"], "gone", True)
    assert type(kafka_error(error, "x")) is PermanentKafkaError


def test_what_the_client_raises_is_mapped() -> None:
    with pytest.raises(TransientKafkaError, match="reading events"), mapped("reading events"):
        raise confluent_kafka.KafkaException(confluent_kafka.KafkaError(CODES["_TIMED_OUT"]))


def test_an_option_that_the_client_does_not_know_is_named() -> None:
    config = client_config(KafkaSettings(options={"nonsense.option": 1}))
    with pytest.raises(ConfigurationError, match=r"nonsense\.option"):
        open_client(confluent_kafka.Producer, config)


def test_options_of_the_operator_win_over_ours() -> None:
    config = producer_config(KafkaSettings(options={"client.id": "billing"}), ProducerSettings())
    assert config["client.id"] == "billing"


def test_secrets_reach_the_client_and_only_the_client() -> None:
    kafka = KafkaSettings.model_validate({"sasl_password": "hush"})
    assert client_config(kafka)["sasl.password"] == "hush"
    assert "hush" not in repr(kafka)


def test_a_setting_that_is_not_given_is_left_to_the_client() -> None:
    assert not {name for name in client_config(KafkaSettings()) if name.startswith(("sasl", "ssl"))}
