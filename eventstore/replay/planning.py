"""From what an operator asks for to a plan: looks at Kafka, writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from eventstore.config import Settings
from eventstore.events.erasure import Erasures
from eventstore.ingest.admission import Admission, ClockRules
from eventstore.replay.bounds import AtTime, Bound, Committed, Resolver
from eventstore.replay.judge import Judge, ScopedBook
from eventstore.replay.marks import MarkTable
from eventstore.replay.plan import Plan, replay_group
from eventstore.replay.preview import Sample, first_times, take_sample
from eventstore.replay.ranges import (
    Ranges,
    aged_out,
    aged_out_since,
    beyond_end,
    clipped,
    nothing_in,
    ranges,
    refuse,
    sure_from,
)
from eventstore.replay.scope import Scope, scoped, selection
from eventstore.stream.admin import TopicAdmin
from eventstore.stream.erasures import ErasureTable
from eventstore.stream.offsets import Held, TopicOffsets
from eventstore.stream.range_reader import RangeReader
from eventstore.tenancy import Registry

GAP_MEND: Final = "restore older events from a backup; to replay what is left, add --accept-gap"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    start: Bound
    end: Bound = field(default_factory=Committed)
    scope: Scope = field(default_factory=Scope)
    accept_gap: bool = False
    """Replay what the topic still holds of the range."""


@dataclass(frozen=True, slots=True)
class Survey:
    """A range as Kafka has it, and what is in it."""

    ranges: Ranges
    meant: Registry
    """What the scope leaves of the registry."""
    held: Mapping[int, Held]
    gaps: Sequence[str]
    """What the topic no longer holds of what was asked for."""
    sample: Sample

    def check(self) -> None:
        """Raises RefusedError if something of the range is gone."""
        refuse(list(self.gaps), GAP_MEND)

    def plan(self, settings: Settings, request: Request, replay_id: str, now_ms: int) -> Plan:
        return Plan(
            id=replay_id,
            topic=settings.topics.events,
            group=replay_group(settings.worker.group, replay_id),
            ranges=self.ranges,
            scope=request.scope,
            clusters=tuple(sorted(self.meant.clusters)),
            created_ms=now_ms,
        )


def survey(settings: Settings, registry: Registry, request: Request, now_ms: int) -> Survey:
    """Look at the range that is asked for.

    Raises:
        ConfigurationError, QueryError: an unknown cluster, tier, tenant or mark.
        RefusedError: an empty range, offsets of other partitions or another topic, two tiers into one cluster.
        KafkaError: Kafka cannot or will not answer.
    """
    meant = scoped(registry, request.scope)
    topic = settings.topics.events
    offsets = TopicOffsets(settings.kafka, topic)
    held = offsets.held()
    resolver = Resolver(offsets, settings.worker.group, MarkTable(settings.kafka, settings.topics.marks).find)
    starts = resolver.resolve(request.start, held, "--from-offset")
    ends = resolver.resolve(request.end, held, "--to-offset")
    refuse(beyond_end(topic, starts, held))
    asked = ranges(starts, ends, held)
    refuse(nothing_in(topic, asked))
    wanted = clipped(asked, held)
    with RangeReader(settings.kafka, topic) as reader:
        gaps = _gaps(settings, request, asked, _Trimmed(held, _first_times(reader, held)), now_ms)
        if request.accept_gap:
            gaps = []
            refuse(nothing_in(topic, wanted))
        sample = take_sample(reader, wanted, judge(settings, meant, request.scope, now_ms))
    return Survey(wanted, meant, held, gaps, sample)


def judge(settings: Settings, meant: Registry, scope: Scope, now_ms: int) -> Judge:
    """The book as it stands now, erasures included; raises KafkaError if those cannot be read."""
    table = ErasureTable(settings.kafka, settings.topics.erasures)
    return book(settings, meant, scope, Erasures({each.key: each.to_micros for each in table.read()}), now_ms)


def book(settings: Settings, meant: Registry, scope: Scope, erasures: Erasures, now_ms: int) -> ScopedBook:
    rules = ClockRules(settings.worker.max_future, settings.worker.late_after)
    return ScopedBook(Admission(meant, now_ms * 1_000, rules, erasures), selection(scope, meant))


def _first_times(reader: RangeReader, held: Mapping[int, Held]) -> dict[int, int]:
    """When the first held records were appended, of partitions that have let go of earlier ones."""
    return first_times(
        reader, {partition: there.first for partition, there in held.items() if 0 < there.first < there.end}
    )


class _Trimmed(NamedTuple):
    """What each partition holds, and when the first held record of those that have let go of others was appended."""

    held: Mapping[int, Held]
    first_ms: Mapping[int, int]


def _gaps(settings: Settings, request: Request, asked: Ranges, there: _Trimmed, now_ms: int) -> list[str]:
    """What the topic no longer holds of what was asked for."""
    topic = settings.topics.events
    gaps = list(aged_out(topic, asked, *there))
    if isinstance(request.start, AtTime) and there.first_ms:
        config = TopicAdmin(settings.kafka).topics([topic])[topic].config
        gaps += aged_out_since(topic, request.start.ms, *there, sure_from(config, now_ms))
    return gaps
