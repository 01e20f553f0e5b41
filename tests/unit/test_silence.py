"""When a member that hears nothing is silent, and when there is nothing to hear."""

import asyncio
from collections.abc import Callable

import pytest
from confluent_kafka import TopicPartition

from eventstore.errors import KafkaError
from eventstore.stream.assignment import ConsumerPolicy, Place
from eventstore.stream.consumer import ChunkConsumer
from eventstore.stream.silence import LOOK_SECONDS, Silence
from tests.loops import on_event_loop

pytestmark = pytest.mark.unit

PLACE, OTHER = Place("events", 0), Place("events", 1)


def look(silence: Silence, number: int, end: int | None, *, moved: int = 0) -> float | None:
    """The look of this number, all of them when they are due."""
    now = 1_000.0 + number * LOOK_SECONDS
    silence.broken(moved, now)
    if silence.look_is_due(now):
        silence.looked(None if end is None else {PLACE: end}, now)
    return silence.since


def test_records_that_come_and_are_not_taken_are_a_silence_from_when_they_were_seen() -> None:
    silence = Silence()
    assert [look(silence, number, end) for number, end in enumerate((5, 5, 5, 7, 7))] == [
        None, None, None, 1_000.0 + 3 * LOOK_SECONDS, 1_000.0 + 3 * LOOK_SECONDS
    ]  # fmt: skip


def test_records_that_wait_without_more_coming_may_be_markers_that_nobody_is_handed() -> None:
    silence = Silence()
    assert {look(silence, number, 5) for number in range(9)} == {None}


def test_whatever_is_taken_ends_a_silence() -> None:
    silence = Silence()
    for number, end in enumerate((5, 5, 7)):
        look(silence, number, end)
    assert silence.since is not None
    assert look(silence, 3, 9, moved=1) is None
    assert look(silence, 4, 9, moved=1) is None


def test_brokers_that_do_not_answer_are_silent_themselves() -> None:
    silence = Silence()
    for number, end in enumerate((5, 5, 7)):
        look(silence, number, end)
    assert look(silence, 3, None) is None
    assert look(silence, 4, 9) is None, "nothing is known of what came meanwhile"


def test_a_partition_that_was_not_looked_at_before_has_not_grown() -> None:
    silence = Silence()
    look(silence, 0, 5)
    look(silence, 1, 5)
    silence.looked({PLACE: 5, OTHER: 100}, 1_000.0 + 2 * LOOK_SECONDS)
    assert silence.since is None


class Group:
    """The client's side of a revocation."""

    def incremental_unassign(self, _: list[TopicPartition]) -> None: ...


@pytest.mark.parametrize(("protocol", "outside"), [("classic", True), ("consumer", False)])
def test_a_member_whose_last_partition_is_revoked_waits_for_the_group_s_word(protocol: str, outside: bool) -> None:  # noqa: FBT001
    @on_event_loop
    async def scenario() -> None:
        config = {"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "group.protocol": protocol, "log_level": 0}
        member = ChunkConsumer(config, ConsumerPolicy(), nothing, unheard)
        revoked: Callable[..., None] = member._pump._revoked
        member._assignments.add({PLACE: 0, OTHER: 0})
        await asyncio.to_thread(revoked, Group(), [TopicPartition(*PLACE)])
        assert member.outside_since is None, "one is left"
        await asyncio.to_thread(revoked, Group(), [TopicPartition(*OTHER)])
        assert (member.outside_since is not None) is outside

    scenario()


async def nothing(_: object) -> None:
    pass


def unheard(error: KafkaError) -> None:
    raise AssertionError(error)
