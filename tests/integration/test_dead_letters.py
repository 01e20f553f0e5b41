"""Dead letters on a real Kafka: sent, listed, explained, replayed."""

import asyncio
import json
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner, Result

from eventstore.cli import dlq
from eventstore.config import load_settings
from eventstore.errors import ConfigurationError, EventstoreError, PermanentKafkaError, TransientKafkaError
from eventstore.events import Coordinates, Reason, Rejected, event_id
from eventstore.stream.dead_letter import DeadLetter, Where
from eventstore.stream.dead_letter_log import DeadLetterLog, Replay
from eventstore.stream.dead_letters import DeadLetterProducer, Reject
from eventstore.stream.headers import origin
from eventstore.stream.producer import RecordProducer
from tests.builders import envelope
from tests.own_topics import OwnTopics, Published, own_topics
from tests.stacks import RunningStack

pytestmark = pytest.mark.integration

OWN_HEADERS: list[tuple[str, bytes | None]] = [("traceparent", b"00-1"), ("nothing", None)]


@pytest.fixture
def topics(stack: RunningStack) -> Iterator[OwnTopics]:
    with own_topics(stack) as made:
        yield made


def reject(
    topics: OwnTopics,
    offset: int,
    value: bytes | None = None,
    *,
    reason: Reason = Reason.SCHEMA,
    key: bytes | None = b"shop:u1",
    headers: list[tuple[str, bytes | None]] | None = None,
) -> Reject:
    where = Coordinates(topics.events, offset % 3, offset)
    return Reject(Rejected(reason, f"detail {offset}"), where, key, value, headers or [], 1_789_000_000_000)


def send(topics: OwnTopics, *batches: list[Reject]) -> None:
    async def all_at_once() -> None:
        settings = topics.settings
        async with DeadLetterProducer(settings.kafka, settings.producer, settings.topics.dead_letters) as producer:
            await asyncio.gather(*map(producer.send, batches))

    asyncio.run(all_at_once())


def run(topics: OwnTopics, *arguments: str, **environment: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    dlq.register(app)

    @app.callback()  # with a second command beside it a group keeps its name
    def main() -> None: ...

    return CliRunner(env=topics.environment | environment).invoke(app, ["dlq", *arguments])


def letters(topics: OwnTopics) -> list[DeadLetter]:
    log = DeadLetterLog(topics.settings.kafka, topics.dead_letters)
    return [record for record in log.scan() if isinstance(record, DeadLetter)]


def replay(topics: OwnTopics, *conditions: str, to: str | None = None) -> Replay:
    settings = topics.settings
    made = Replay(
        DeadLetterLog(settings.kafka, settings.topics.dead_letters),
        RecordProducer(settings.kafka, settings.producer, settings.topics.events),
        Where(conditions),
        to,
    )
    made.run()
    return made


def identity(record: Published) -> bytes:
    """As a worker tells it for an event without a message_id."""
    first = origin(record.headers)
    assert first is not None
    return event_id("shop", None, lambda: first)


def test_what_was_sent_is_confirmed_and_reads_back_as_it_was(topics: OwnTopics) -> None:
    sent = [reject(topics, n, b"%d" % n, headers=OWN_HEADERS) for n in range(2_500)]
    send(topics, sent[:2_400], sent[2_400:2_450], sent[2_450:], [])
    found = letters(topics)
    assert sorted(letter.source.offset for letter in found) == list(range(2_500))
    for letter in found:
        assert letter.value == b"%d" % letter.source.offset
        assert (letter.key, letter.headers) == (b"shop:u1", OWN_HEADERS)
        assert letter.detail == f"detail {letter.source.offset}"
    assert len({letter.partition for letter in found}) == 1, "one key, one partition"


def test_a_reject_that_cannot_be_published_is_an_error(topics: OwnTopics) -> None:
    gone = load_settings(kafka={"bootstrap_servers": "127.0.0.1:1"}, producer={"delivery_timeout": 0.5})

    async def attempt() -> None:
        async with DeadLetterProducer(gone.kafka, gone.producer, "events.dlq") as producer:
            await producer.send([reject(topics, 1)])

    with pytest.raises(TransientKafkaError, match="publishing to events"):
        asyncio.run(attempt())


def test_a_reject_larger_than_the_topic_takes_is_an_error_and_the_next_one_is_not(topics: OwnTopics) -> None:
    settings = load_settings(kafka=topics.kafka, producer={"compression": "none"})

    async def attempt() -> None:
        async with DeadLetterProducer(settings.kafka, settings.producer, topics.dead_letters) as producer:
            with pytest.raises(PermanentKafkaError, match=r"max\.message\.bytes"):
                await producer.send([reject(topics, 1, b"x" * 3_000_000), reject(topics, 2)])
            await producer.send([reject(topics, 3, b"x" * 1_000_000)])

    asyncio.run(attempt())
    assert 3 in {letter.source.offset for letter in letters(topics)}


def test_a_replay_republishes_bytes_key_and_headers_and_the_first_place(topics: OwnTopics) -> None:
    send(topics, [reject(topics, 7, envelope(), headers=OWN_HEADERS), reject(topics, 8, None, key=None)])
    assert replay(topics).published == 2
    found = {record.value: record for record in topics.records(topics.events)}
    assert found[envelope()].key == b"shop:u1"
    assert found[envelope()].headers == [*OWN_HEADERS, ("es-origin", f"{topics.events}/1/7".encode())]
    tombstone = found[None]
    assert (tombstone.key, tombstone.headers) == (None, [("es-origin", f"{topics.events}/2/8".encode())])


def test_a_second_replay_publishes_nothing(topics: OwnTopics) -> None:
    send(topics, [reject(topics, n, envelope()) for n in range(1_200)])
    assert replay(topics).published == 1_200
    again = replay(topics)
    assert (again.matched, again.already, again.published) == (1_200, 1_200, 0)
    assert len(topics.records(topics.events)) == 1_200


def test_a_filtered_replay_leaves_the_others_for_later(topics: OwnTopics) -> None:
    reasons = (Reason.SCHEMA, Reason.UNKNOWN_TENANT)
    send(topics, [reject(topics, n, envelope(), reason=reasons[n % 2]) for n in range(20)])
    assert replay(topics, "reason=schema").published == 10
    assert replay(topics, "reason=schema").published == 0
    rest = replay(topics)
    assert (rest.matched, rest.already, rest.published) == (20, 10, 10)


def test_a_letter_published_twice_is_one_row(topics: OwnTopics) -> None:
    send(topics, [reject(topics, 7, envelope())], [reject(topics, 7, envelope())])
    assert replay(topics).published == 2
    assert len({identity(record) for record in topics.records(topics.events)}) == 1


def test_a_record_that_is_rejected_again_after_a_replay_is_a_new_letter_of_the_same_row(topics: OwnTopics) -> None:
    send(topics, [reject(topics, 7, envelope())])
    replay(topics)
    once = topics.records(topics.events)[0]
    send(topics, [reject(topics, 900, once.value, headers=once.headers)])
    assert replay(topics).published == 1
    first, second = topics.records(topics.events)
    assert identity(first) == identity(second)
    assert first.headers == second.headers


def test_a_replay_to_another_topic_does_not_count_for_the_source(topics: OwnTopics, stack: RunningStack) -> None:
    send(topics, [reject(topics, 7, envelope())])
    with own_topics(stack) as sandbox:
        assert replay(topics, to=sandbox.events).published == 1
        assert replay(topics, to=sandbox.events).published == 0
        assert len(sandbox.records(sandbox.events)) == 1
    assert replay(topics).published == 1


def test_strangers_in_the_dead_letter_topic_are_told_and_never_replayed(topics: OwnTopics) -> None:
    settings = topics.settings
    producer = RecordProducer(settings.kafka, settings.producer, topics.dead_letters)
    producer.publish(None, b"somebody was here")
    producer.confirm()
    send(topics, [reject(topics, 7, envelope())])
    assert "1 records in" in run(topics, "list").stderr
    assert replay(topics).matched == 1


def test_a_list_counts_by_reason_and_tenant_what_waits_and_what_was_replayed(topics: OwnTopics) -> None:
    send(topics, [reject(topics, n, envelope(tenant=f"t{n % 2}")) for n in range(4)])
    send(topics, [reject(topics, 9, b"nonsense", reason=Reason.MALFORMED)])
    assert run(topics, "replay", "--where", "tenant=t1").exit_code == 0
    found = {(g["reason"], g["tenant"]): g for g in json.loads(run(topics, "list", "--json").stdout)}
    assert {key: (group["waiting"], group["replayed"]) for key, group in found.items()} == {
        ("schema", "t0"): (2, 0),
        ("schema", "t1"): (0, 2),
        ("malformed", "shop"): (1, 0),
    }
    assert found["schema", "t0"]["first"] <= found["schema", "t0"]["last"]
    filtered = json.loads(run(topics, "list", "--where", "reason=malformed", "--json").stdout)
    assert [group["reason"] for group in filtered] == ["malformed"]
    assert "malformed" in run(topics, "list").stdout


def test_an_empty_list_says_so(topics: OwnTopics) -> None:
    assert "No dead letters" in run(topics, "list").stdout


def test_a_letter_is_shown_by_its_place_or_its_sources(topics: OwnTopics) -> None:
    send(topics, [reject(topics, 7, envelope(), headers=OWN_HEADERS)])
    place = json.loads(run(topics, "list", "--json").stdout)[0]["latest"]
    for asked in (place, f"{topics.events}/1/7"):
        shown = json.loads(run(topics, "show", asked, "--json").stdout)
        assert (shown["reason"], shown["source"]) == ("schema", f"{topics.events}/1/7")
        assert shown["body"] == json.loads(envelope())
        assert shown["headers"] == [["traceparent", "00-1"], ["nothing", None]]
    text = run(topics, "show", place).stdout
    assert "detail 7" in text
    assert "mend it and replay" in text
    assert '"uid": "u1"' in text


@pytest.mark.parametrize("value", [None, b"", b"\xff\x00\x1b[31m", b'{"a":1'])
def test_a_body_that_is_no_json_is_shown_without_harm(topics: OwnTopics, value: bytes | None) -> None:
    send(topics, [reject(topics, 7, value)])
    shown = run(topics, "show", f"{topics.events}/1/7")
    assert shown.exit_code == 0
    assert "\x1b[31m" not in shown.stdout


@pytest.mark.parametrize(
    ("place", "error"),
    [("0/99", EventstoreError), ("99/0", EventstoreError), ("other/0/1", EventstoreError), ("7", ConfigurationError)],
)
def test_a_place_without_a_letter_is_an_error(topics: OwnTopics, place: str, error: type[Exception]) -> None:
    assert type(run(topics, "show", place).exception) is error


def test_a_dry_run_publishes_nothing(topics: OwnTopics) -> None:
    send(topics, [reject(topics, 7, envelope())])
    assert "1 match, 0 of them replayed before: 1 to publish" in run(topics, "replay", "--dry-run").stdout
    assert topics.records(topics.events) == []
    assert json.loads(run(topics, "replay", "--json").stdout)["published"] == 1


def test_a_dead_letter_topic_that_is_not_there_is_an_error_with_its_mend(topics: OwnTopics) -> None:
    found = run(topics, "list", EVENTSTORE_TOPICS__DEAD_LETTERS="test-nowhere").exception
    assert isinstance(found, PermanentKafkaError)
    assert "eventstore topics apply" in str(found)
