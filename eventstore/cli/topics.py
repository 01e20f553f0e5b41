"""`eventstore topics`: the Kafka topics, as the settings want them and as they are."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from eventstore.cli.console import AsJson, err, out, print_json, table
from eventstore.config import Settings, load_settings
from eventstore.registry import load_registry
from eventstore.stream.admin import TopicAdmin
from eventstore.stream.topics import Action, Step, Topic, wanted_topics

topics = typer.Typer(name="topics", help="Plan, create and list the Kafka topics.", no_args_is_help=True)

Force = Annotated[bool, typer.Option("--force", help="Add partitions even to a topic that holds records.")]


def register(app: typer.Typer) -> None:
    app.add_typer(topics)


@topics.command("plan")
def show_plan(*, as_json: AsJson = False) -> None:
    """Show what `apply` would do; change nothing.

    Examples:
    - `eventstore topics plan`
    - `EVENTSTORE_TOPICS__PARTITIONS=32 eventstore topics plan --json`
    """
    settings = load_settings()
    with err.status("asking the brokers"):
        steps = TopicAdmin(settings.kafka).plan(_wanted(settings))
    _print(steps, as_json=as_json)


@topics.command("apply")
def apply_plan(*, force: Force = False, as_json: AsJson = False) -> None:
    """Create missing topics and raise limits that are too low. Nothing is ever lowered or deleted.

    More partitions for a topic that holds records are refused (exit 3) without --force: users move to other
    partitions, so their new events may overtake older ones that still wait. Rows do not change: a record without a
    message_id has its identity from where it first stood, and records already written stay where they are.

    Examples:
    - `eventstore topics apply`
    - `EVENTSTORE_TOPICS__REPLICATION=3 eventstore topics apply --json`
    """
    settings = load_settings()
    with err.status("asking the brokers"):
        steps = TopicAdmin(settings.kafka).apply(_wanted(settings), force=force)
    _print(steps, as_json=as_json)


@topics.command("list")
def list_topics(*, as_json: AsJson = False) -> None:
    """List the topics of the brokers, with what they hold and how long.

    Examples:
    - `eventstore topics list`
    - `eventstore topics list --json`
    """
    with err.status("asking the brokers"):
        found = TopicAdmin(load_settings().kafka).topics().values()
    if as_json:
        print_json([asdict(topic) for topic in found])
        return
    rows = (
        (t.name, t.partitions, t.replication, t.records, _hours(t.config["retention.ms"]), t.config["cleanup.policy"])
        for t in found
    )
    out.print(table("Topics", ("topic", "partitions#", "replicas#", "records <=#", "kept#", "cleanup"), rows))


def _wanted(settings: Settings) -> tuple[Topic, ...]:
    return wanted_topics(settings.topics, load_registry(settings.registry).clusters)


def _hours(retention_ms: str) -> str:
    return "for ever" if retention_ms == "-1" else f"{int(retention_ms) / 3_600_000:g} h"


def _print(steps: list[Step], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(step) for step in steps])
    elif not steps:
        out.print("All topics are as the settings want them.")
    else:
        styles = {Action.CREATE: "green", Action.RAISE: "green", Action.KEEP: "yellow", Action.REFUSE: "red"}
        rows = ((s.topic, s.setting, s.found, s.wanted, Text(s.action, styles[s.action])) for s in steps)
        out.print(table("Topics", ("topic", "setting", "found", "wanted", "action"), rows))
        for step in steps:
            if step.why:
                out.print(f"{step.topic}: {step.setting}: {step.why}", markup=False, soft_wrap=True)
