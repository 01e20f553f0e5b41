"""The second style of replay: the live group itself is moved back, and its workers store the range once more."""

import msgspec

from eventstore.config import Settings
from eventstore.errors import RefusedError
from eventstore.replay.marks import MarkTable, take_mark
from eventstore.replay.planning import Request, survey
from eventstore.stream.offsets import TopicOffsets
from eventstore.tenancy import Registry


class Moved(msgspec.Struct, frozen=True):
    group: str
    mark: str
    """Where it stood: `--from-mark` and `--reset-group` take it back there."""
    offsets: dict[int, tuple[int, int]]
    """By partition that moves: where it stood, and where it begins now."""


def reset_group(settings: Settings, registry: Registry, request: Request, now_ms: int, *, execute: bool) -> Moved:
    """Have the live group begin at the request's start; without `execute` only tell what would move.

    Raises:
        RefusedError: the group has members, or the range is empty or partly gone.
        KafkaError: Kafka cannot or will not answer.
    """
    topic, group = settings.topics.events, settings.worker.group
    found = survey(settings, registry, request, now_ms)
    found.check()
    offsets = TopicOffsets(settings.kafka, topic)
    if members := offsets.members(group):
        raise RefusedError(
            f"group {group}: expected no members, found {len(members)} ({members[0]}); stop all workers first, or replay "
            "beside them without --reset-group; nothing was written"
        )
    # only back, never forward over what it has not done: a range ends where the group stands
    before, after = offsets.committed(group), {p: each.start for p, each in found.ranges.items() if each.records}
    moved = Moved(group, f"before-reset-{now_ms}", {p: (before[p], start) for p, start in after.items()})
    if execute:
        mark = take_mark(settings.kafka, name=moved.mark, topic=topic, group=group, now_ms=now_ms)
        MarkTable(settings.kafka, settings.topics.marks).add(mark)
        offsets.move(group, after)
    return moved
