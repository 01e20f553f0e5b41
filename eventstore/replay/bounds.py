"""Where a range is asked to begin or to end, and the offsets that this means now."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from eventstore.errors import RefusedError
from eventstore.replay.marks import Mark
from eventstore.replay.ranges import refuse, unknown_partitions
from eventstore.stream.offsets import Held, TopicOffsets


@dataclass(frozen=True, slots=True)
class AtOffset:
    """The same offset in every partition."""

    offset: int


@dataclass(frozen=True, slots=True)
class AtOffsets:
    """An offset for each of some partitions; the others are left out."""

    offsets: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class AtTime:
    """The first record that Kafka appended at this time or later, in ms since the epoch."""

    ms: int


@dataclass(frozen=True, slots=True)
class AtMark:
    name: str


@dataclass(frozen=True, slots=True)
class Earliest:
    """The first record that is still held."""


@dataclass(frozen=True, slots=True)
class Latest:
    """Where the topic ends now."""


@dataclass(frozen=True, slots=True)
class Committed:
    """Where the live group stands now: everything before is its work done, everything after its work to do."""


Bound = AtOffset | AtOffsets | AtTime | AtMark | Earliest | Latest | Committed


@dataclass(frozen=True, slots=True)
class Resolver:
    """Bounds to offsets, by partition."""

    offsets: TopicOffsets
    group: str
    """The live one."""
    mark: Callable[[str], Mark]

    def resolve(self, bound: Bound, held: Mapping[int, Held], option: str) -> dict[int, int]:
        """A partition in which the bound means nothing is left out.

        Raises:
            RefusedError: the mark is of another topic, or the topic's partitions have changed since; or offsets of
                partitions that there are not.
            QueryError: there is no such mark.
            KafkaError: Kafka cannot or will not answer.
        """
        found: Mapping[int, int]
        match bound:
            case AtOffset(offset):
                found = dict.fromkeys(held, offset)
            case AtOffsets(named):
                refuse(unknown_partitions(named, held, option))
                found = named
            case AtTime(ms):
                found = self.offsets.since(ms)
            case AtMark(name):
                found = marked(self.mark(name), self.offsets, held)
            case Earliest():
                found = {partition: there.first for partition, there in held.items()}
            case Latest():
                found = {partition: there.end for partition, there in held.items()}
            case Committed():
                found = self.offsets.committed(self.group)
        return dict(found)


class Topic(Protocol):
    """`TopicOffsets` is one."""

    topic: str

    def topic_id(self) -> str: ...


def marked(mark: Mark, topic: Topic, held: Mapping[int, Held]) -> Mapping[int, int]:
    """The mark's offsets.

    Raises:
        RefusedError: the mark is of another topic, of one of this name that is gone, or from before partitions were added.
    """
    if mark.topic != topic.topic:
        raise RefusedError(
            f"mark {mark.name}: expected one of topic {topic.topic}, it is of {mark.topic}; name another mark, or set "
            "EVENTSTORE_TOPICS__EVENTS; nothing was written"
        )
    if mark.topic_id is not None and mark.topic_id != topic.topic_id():
        raise RefusedError(
            f"mark {mark.name}: expected one of the topic {topic.topic} that there is, it is of one that was deleted since: "
            "its offsets mean other records now; begin at a time instead (--from-timestamp); nothing was written"
        )
    if mark.partitions != len(held):
        raise RefusedError(
            f"mark {mark.name}: expected {mark.partitions} partitions in topic {topic.topic}, as there were, found "
            f"{len(held)}: users have moved between partitions since; begin at a time before the change instead "
            "(--from-timestamp); nothing was written"
        )
    return mark.offsets
