"""The second style of replay: the live group itself is moved back, and its workers store the range once more."""

from collections.abc import Mapping

import msgspec

from eventstore.config import Settings
from eventstore.errors import PermanentKafkaError, RefusedError
from eventstore.replay.bounds import AtMark, marked
from eventstore.replay.marks import Mark, MarkTable, take_mark
from eventstore.replay.planning import Request, survey
from eventstore.stream.offsets import TopicOffsets
from eventstore.tenancy import Registry


class Moved(msgspec.Struct, frozen=True):
    group: str
    mark: str
    """Where it stood: `--from-mark` and `--reset-group` take it back there, while it has not gone on."""
    offsets: dict[int, tuple[int, int]]
    """By partition that moves: where it stood, and where it begins now."""


def reset_group(settings: Settings, registry: Registry, request: Request, now_ms: int, *, execute: bool) -> Moved:
    """Have the live group begin at the request's start; without `execute` only tell what would move.

    Raises:
        RefusedError: the group has members, or the range is empty or partly gone; or a reset that is to be undone has been
            worked on.
        QueryError: there is no such mark.
        KafkaError: Kafka cannot or will not answer.
    """
    topic, group = settings.topics.events, settings.worker.group
    offsets, marks = TopicOffsets(settings.kafka, topic), MarkTable(settings.kafka, settings.topics.marks)
    before = offsets.committed(group)
    start = request.start
    made = marks.find(start.name) if isinstance(start, AtMark) else None
    if made is not None and made.reset_to is not None:
        after = undone(made, marked(made, offsets, offsets.held()), group, before)
    else:
        found = survey(settings, registry, request, now_ms)
        found.check()
        # only back, never forward over what it has not done: a range ends where the group stands
        after = {partition: each.start for partition, each in found.ranges.items() if each.records}
    if members := offsets.members(group):
        raise RefusedError(
            f"group {group}: expected no members, found {len(members)} ({members[0]}); stop all workers first, or replay "
            "beside them without --reset-group; nothing was written"
        )
    moved = Moved(group, f"before-reset-{now_ms}", {p: (before[p], to) for p, to in after.items()})
    if execute:
        mark = take_mark(settings.kafka, name=moved.mark, topic=topic, group=group, now_ms=now_ms)
        kept = msgspec.structs.replace(mark, reset_to=after)
        marks.add(kept)
        try:
            offsets.move(group, after)
        except PermanentKafkaError:  # a worker has joined at this moment: nothing has moved
            marks.remove(kept)
            raise
    return moved


def undone(mark: Mark, stood: Mapping[int, int], group: str, committed: Mapping[int, int]) -> dict[int, int]:
    """Where the group stood before the reset that the mark is of: forward, over what it had done once.

    Raises:
        RefusedError: the mark is of another group; or the group has gone on since, and part of the range is done again.
    """
    reset_to = mark.reset_to or {}
    if mark.group != group:
        raise RefusedError(
            f"mark {mark.name}: expected one of group {group}, it is of {mark.group}; nothing was written"
        )
    for partition, offset in reset_to.items():
        if (there := committed.get(partition)) != offset:
            raise RefusedError(
                f"mark {mark.name}: expected group {group} to stand at {offset} in partition {partition}, where the reset put "
                f"it, found {there}: it has gone on since; let it do the rest again, which changes nothing; nothing was written"
            )
    return {partition: stood[partition] for partition in reset_to}
