"""Every command's help shows how to call it, and what it shows can be called."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from itertools import dropwhile, takewhile
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from eventstore.cli.app import COMMANDS, build

pytestmark = pytest.mark.unit

ASSIGNMENT = re.compile(r"[A-Z_]+=.*")


@cache
def root() -> TyperGroup:
    command = get_command(build())
    assert isinstance(command, TyperGroup)
    return command


def leaves(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


def examples(command: Any) -> list[list[str]]:
    """The words after `eventstore` of every call in the help's examples, pipes and environment taken apart."""
    _, _, shown = f"{command.help or ''}\n{command.epilog or ''}".partition("Examples:")
    lines = (line.strip().removeprefix("- ").strip("`") for line in shown.splitlines())
    return [call for line in lines if line for call in calls(line)]


def calls(line: str) -> Iterator[list[str]]:
    words = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
    words.whitespace_split = True
    rest = list(words)
    while rest:
        call = list(dropwhile(ASSIGNMENT.fullmatch, takewhile(lambda word: not is_operator(word), rest)))
        if call[:1] == ["eventstore"]:
            yield call[1:]
        rest = list(dropwhile(lambda word: not is_operator(word), rest))[1:]


def is_operator(word: str) -> bool:
    return set(word) <= set("|&;<>")


def parse(words: list[str]) -> tuple[str, ...]:
    """The command that the words call, its arguments parsed but not executed. Raises what the user would see."""
    command: Any = root()
    path: tuple[str, ...] = ()
    while isinstance(command, TyperGroup):
        name, *words = words
        assert name in command.commands, f"no command {' '.join((*path, name))}"
        command, path = command.commands[name], (*path, name)
    command.make_context(path[-1], words)
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_in_the_module_of_its_name_so_that_it_can_be_imported_alone(name: str) -> None:
    alone = typer.Typer()
    alone.callback()(lambda: None)
    import_module(f"eventstore.cli.{name}").register(alone)
    command: Any = get_command(alone)
    assert list(command.commands) == [name]


def test_every_command_says_what_it_does_and_shows_examples() -> None:
    commands = dict(leaves(root()))

    assert {path[0] for path in commands} >= set(COMMANDS)
    without = [" ".join(path) for path, command in commands.items() if not command.help or not examples(command)]
    assert without == []


def test_every_example_parses_and_calls_the_command_it_explains() -> None:
    wrong = []
    for path, command in leaves(root()):
        called = []
        for words in examples(command):
            try:
                called.append(parse(words))
            except Exception as error:  # noqa: BLE001 — whatever a user who pastes it would meet
                wrong.append(f"eventstore {shlex.join(words)}: {error}")
        if called and path not in called:
            wrong.append(f"{' '.join(path)}: none of its examples calls it")
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("eventstore schema check", [["schema", "check"]]),
        ("cat x | eventstore produce - --tenant-strip '#' > out", [["produce", "-", "--tenant-strip", "#"]]),
        ("EVENTSTORE_A__B=1 eventstore a && eventstore b c", [["a"], ["b", "c"]]),
        ("curl -s https://example.com/?a=1", []),
    ],
)
def test_calls_are_found_among_pipes_redirections_and_environment(line: str, expected: list[list[str]]) -> None:
    assert list(calls(line)) == expected


@pytest.mark.parametrize("words", [["timeline", "shop"], ["timeline", "shop", "u1", "--lst", "3d"], ["timelin"]])
def test_a_call_that_cannot_be_parsed_is_noticed(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"Missing|No such option|no command"):
        parse(words)
