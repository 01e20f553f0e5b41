import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from typer.testing import CliRunner, Result

from eventstore.cli.app import build
from eventstore.clock import now_ms
from eventstore.errors import PermanentStoreError, TransientStoreError
from eventstore.registry import load_registry
from eventstore.store.schema import apply_schema
from eventstore.store.session import close, connect
from tests.builders import DAY_MS
from tests.stacks import RunningStack

pytestmark = pytest.mark.integration

EVENTS = 25
INSERT = "INSERT INTO events (tenant, uid, bid, ts, eid, event, properties, context) VALUES ('shop', 'u 1', ?, ?, ?, ?, ?, '{}')"


@pytest.fixture(scope="module")
def registry_path(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A registry whose tier `t30` has a keyspace of its own with 25 events of `u 1`, one a day."""
    t30 = load_registry(stack.registry_path).tiers["t30"]
    t30 = replace(t30, cluster=replace(t30.cluster, keyspace=f"cli_timeline_{uuid4().hex[:8]}"))
    session = connect(t30.cluster, request_timeout=20.0)
    apply_schema(session, t30)
    prepared = session.prepare(INSERT)
    for day in range(EVENTS):
        ts = now_ms() - day * DAY_MS
        event = "bought" if day == 20 else "viewed"
        session.execute(prepared, (t30.buckets.bid(ts), ts, uuid4(), event, f'{{"day":\n{day}, "price": 1.50}}'))
    path = tmp_path_factory.mktemp("registry") / "tenants.yaml"
    path.write_text(
        stack.registry_path.read_text().replace("keyspace: eventstore", f"keyspace: {t30.cluster.keyspace}")
    )
    yield path
    session.execute(f"DROP KEYSPACE {t30.cluster.keyspace}", timeout=60.0)
    close(session)


def run(registry: Path, *arguments: str) -> Result:
    environment = {"EVENTSTORE_REGISTRY": str(registry), "EVENTSTORE_READER__REQUEST_TIMEOUT": "10", "COLUMNS": "100"}
    return CliRunner(env=environment).invoke(build(["timeline"]), ["timeline", *arguments])


def test_the_table_and_the_printed_command_lead_through_the_whole_timeline(registry_path: Path) -> None:
    first = run(registry_path, "shop", "u 1", "--last", "30d")
    assert first.exit_code == 0
    assert first.stdout.count("viewed") == 20

    command = first.stderr.partition("Older: ")[2]
    assert command.startswith("eventstore timeline ")
    second = run(registry_path, *shlex.split(command)[2:])
    assert second.stdout.count("viewed") == 4
    assert second.stdout.count("bought") == 1
    assert "Older" not in second.stderr


def test_json_is_one_valid_document_with_the_stored_json_untouched(registry_path: Path) -> None:
    result = run(registry_path, "shop", "u 1", "--limit", "2", "--json")
    document = msgspec.json.decode(result.stdout)

    assert [event["properties"]["day"] for event in document["events"]] == [0, 1]
    assert '"properties":{"day":\n1, "price": 1.50}' in result.stdout
    assert document["next_cursor"]


def test_ndjson_is_one_event_a_line_whatever_white_space_producers_sent(registry_path: Path) -> None:
    lines = run(registry_path, "shop", "u 1", "--ndjson").stdout.splitlines()
    assert [msgspec.json.decode(line)["properties"]["day"] for line in lines] == list(range(EVENTS))

    assert len(run(registry_path, "shop", "u 1", "--ndjson", "--limit", "3").stdout.splitlines()) == 3


def test_count_and_latest_answer_for_range_and_name(registry_path: Path) -> None:
    assert run(registry_path, "shop", "u 1", "--count").stdout == "25\n"
    assert run(registry_path, "shop", "u 1", "--count", "--last", "5d", "--json").stdout.endswith('"count":5}\n')

    latest = msgspec.json.decode(run(registry_path, "shop", "u 1", "--latest", "bought", "--json").stdout)
    assert latest["latest"]["properties"]["day"] == 20
    assert msgspec.json.decode(run(registry_path, "shop", "u 1", "--latest", "sold", "--json").stdout)["latest"] is None


def test_a_user_without_events_is_an_empty_result(registry_path: Path) -> None:
    result = run(registry_path, "shop", "nobody", "--event", "viewed")

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "no event viewed of user nobody of shop in this range\n"


def test_an_unreachable_cluster_is_an_error_that_names_it(registry_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(registry_path.read_text().replace("29042", "1"))
    result = run(path, "shop", "u1")

    assert isinstance(result.exception, TransientStoreError)
    assert str(result.exception).startswith("cluster c30: no node answers")


def test_a_cluster_without_the_table_is_an_error_that_names_the_mend(registry_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(registry_path.read_text().replace("keyspace: cli_timeline_", "keyspace: missing_"))
    result = run(path, "shop", "u1")

    assert isinstance(result.exception, PermanentStoreError)
    assert "eventstore schema check" in str(result.exception)


def test_the_guides_example_runs_as_it_stands(registry_path: Path) -> None:
    guide = Path(__file__).parents[2] / "docs" / "reading.md"
    [example] = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    environment = os.environ | {"EVENTSTORE_REGISTRY": str(registry_path), "EVENTSTORE_READER__REQUEST_TIMEOUT": "10"}

    example = example.replace("u-4711", "u 1").replace("product_viewed", "viewed")
    done = subprocess.run([sys.executable, "-c", example], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("viewed") == 20
