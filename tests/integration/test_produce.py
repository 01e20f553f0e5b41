"""Files into a real topic."""

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import typer
from typer.testing import CliRunner, Result

from eventstore.cli import produce
from eventstore.errors import ConfigurationError, ExitCode, InputError, KafkaError, TransientKafkaError
from eventstore.events import Event, check_key, decode
from tests.builders import envelope
from tests.own_topics import OwnTopics, Published, own_topics
from tests.stacks import REPOSITORY, RunningStack

pytestmark = pytest.mark.integration

EDITS = REPOSITORY / "eventstore" / "demo" / "data" / "wikiticker-2015-09-12-sampled.json.gz"
MAPPING = (
    "--tenant-from", "channel", "--tenant-strip", "#", "--uid-from", "user", "--time-from", "time", "--event", "edit",
)  # fmt: skip


@pytest.fixture
def topics(stack: RunningStack) -> Iterator[OwnTopics]:
    with own_topics(stack) as made:
        yield made


def run(topics: OwnTopics, *arguments: str | Path, stdin: bytes = b"", **environment: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    produce.register(app)
    return CliRunner(env=topics.environment | environment).invoke(app, list(map(str, arguments)), input=stdin)


def counts(result: Result) -> tuple[int, int, int]:
    found = json.loads(result.stdout)
    return found["read"], found["confirmed"], found["refused"]


def events(records: list[Published]) -> list[Event]:
    found = [decode(record.value) for record in records]
    assert all(isinstance(event, Event) for event in found)
    return [event for event in found if isinstance(event, Event)]


def test_real_edits_arrive_as_events_and_a_second_run_makes_the_same_ones(topics: OwnTopics) -> None:
    shift = ("--shift-to", "2026-09-21T00:00:00Z")
    assert counts(run(topics, EDITS, *MAPPING, *shift, "--json")) == (39_244, 39_244, 0)
    records = topics.records(topics.events)
    assert len(records) == 39_244
    found = events(records)
    assert all(check_key(event, record.key) is None for event, record in zip(found, records, strict=True))
    assert len({event.tenant for event in found}) == 51
    assert len({event.message_id for event in found}) == 39_244
    assert max(event.timestamp for event in found if isinstance(event.timestamp, int)) == 1_789_948_800_000

    lines = gzip.decompress(EDITS.read_bytes()).splitlines()
    array = b"[" + b",\n".join(lines) + b"]"
    assert counts(run(topics, "-", *MAPPING, *shift, "--json", stdin=array)) == (39_244, 39_244, 0)
    again = topics.records(topics.events)
    assert len(again) == 2 * 39_244
    assert {record.value for record in again} == {record.value for record in records}


def test_one_users_events_are_on_one_partition_in_order(topics: OwnTopics) -> None:
    lines = [envelope(uid=f"u{n % 7}", message_id=f"m{n}") for n in range(200)]
    assert run(topics, "-", stdin=b"\n".join(lines)).exit_code == 0
    records = topics.records(topics.events)
    assert sorted(record.value or b"" for record in records) == sorted(lines)
    for user in range(7):
        mine = [record for record in records if record.key == b"shop:u%d" % user]
        assert len({record.partition for record in mine}) == 1
        assert [record.value for record in mine] == lines[user::7]


def test_refused_lines_are_told_and_the_others_are_published(topics: OwnTopics, tmp_path: Path) -> None:
    refused = tmp_path / "refused.jsonl"
    lines = [envelope(message_id="m1"), b"nonsense", b"", envelope(uid=""), envelope(message_id="m2")]
    result = run(topics, "-", "--refused", refused, stdin=b"\n".join(lines))
    assert result.exit_code == ExitCode.FAILED
    assert "4 read, 2 confirmed" in result.stdout
    assert "-:2: malformed:" in result.stderr
    told = [orjson.loads(line) for line in refused.read_bytes().splitlines()]
    assert [(each["position"], each["reason"]) for each in told] == [(2, "malformed"), (4, "limit")]
    assert told[0]["record"] == "nonsense"
    assert [record.value for record in topics.records(topics.events)] == [lines[0], lines[4]]


def test_refused_lines_may_be_allowed(topics: OwnTopics) -> None:
    assert run(topics, "-", "--allow-refused", stdin=b"nonsense").exit_code == ExitCode.DONE


def test_only_the_first_refused_lines_are_shown(topics: OwnTopics) -> None:
    result = run(topics, "-", stdin=b"nonsense\n" * 25)
    assert result.stderr.count("  -:") == 10
    assert "and 15 more" in result.stderr


def test_unchecked_lines_are_published_as_they_are(topics: OwnTopics) -> None:
    lines = [b"nonsense", b'{"tenant":"nobody","uid":"u1"}', b"\xff"]
    assert run(topics, "-", "--no-check", stdin=b"\n".join(lines)).exit_code == 0
    assert {(r.key, r.value) for r in topics.records(topics.events)} == {
        (None, lines[0]), (b"nobody:u1", lines[1]), (None, lines[2]),
    }  # fmt: skip


def test_a_shift_to_now_says_how_to_repeat_it(topics: OwnTopics) -> None:
    lines = b"\n".join(envelope(timestamp=stamp) for stamp in (1_000, 5_000, 3_000))
    before = time.time_ns() // 1_000_000
    shifted_to = json.loads(run(topics, "-", "--shift-to", "now", "--json", stdin=lines).stdout)["shifted_to"]
    run(topics, "-", "--shift-to", shifted_to, stdin=lines)
    records = topics.records(topics.events)
    assert len(records) == 6
    assert len({record.value for record in records}) == 3
    newest = max(event.timestamp for event in events(records) if isinstance(event.timestamp, int))
    assert before <= newest <= time.time_ns() // 1_000_000


def test_a_file_that_is_cut_off_publishes_what_came_before_and_fails(topics: OwnTopics) -> None:
    result = run(topics, "-", stdin=b"[" + envelope(message_id="m1") + b"," + envelope()[:20])
    assert isinstance(result.exception, InputError)
    assert "1 read, 1 confirmed" in result.stdout
    assert len(topics.records(topics.events)) == 1


def test_more_bytes_than_the_queue_holds_are_published_in_bounded_memory(topics: OwnTopics) -> None:
    lines = b"\n".join(envelope(message_id=f"m{n}", properties={"a": "x" * 10_000}) for n in range(300))
    result = run(topics, "-", "--json", stdin=lines, EVENTSTORE_PRODUCER__QUEUE_BYTES=str(64 * 1_024))
    assert counts(result) == (300, 300, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing-here.json",),
        ("-", "--tenant", "a", "--tenant-from", "b"),
        ("-", "--no-check", "--tenant", "a"),
        ("-", "--shift-to", "tomorrow"),
        ("-", "--shift-to", "2026-09-21"),
        ("-", "--event", "a\x00b"),
        ("-", "--refused", "/"),
    ],
)
def test_usage_errors_publish_nothing(topics: OwnTopics, arguments: tuple[str, ...]) -> None:
    result = run(topics, *arguments, stdin=envelope())
    assert isinstance(result.exception, ConfigurationError)
    assert topics.records(topics.events) == []


def test_nothing_to_shift_by_is_an_error(topics: OwnTopics) -> None:
    assert isinstance(run(topics, "-", "--shift-to", "now", stdin=b"nonsense").exception, InputError)


def test_a_record_that_kafka_does_not_confirm_is_a_failure(topics: OwnTopics) -> None:
    result = run(
        topics, "-", stdin=envelope(),
        EVENTSTORE_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1", EVENTSTORE_PRODUCER__DELIVERY_TIMEOUT="0.5",
    )  # fmt: skip
    assert isinstance(result.exception, TransientKafkaError)
    assert "1 read, 0 confirmed" in result.stdout


def test_a_record_too_large_for_the_topic_is_a_failure_that_names_the_mend(topics: OwnTopics) -> None:
    result = run(topics, "-", "--no-check", stdin=b"x" * 2_000_000, EVENTSTORE_PRODUCER__COMPRESSION="none")
    assert isinstance(result.exception, KafkaError)
    assert "max.message.bytes" in str(result.exception)
