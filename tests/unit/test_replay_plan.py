"""What a replay is asked for, what it comes to, and what is refused: rules without servers."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from msgspec.structs import replace as replace_mark

from eventstore.cli.replay_options import one_of, parse_offsets
from eventstore.errors import ConfigurationError, RefusedError
from eventstore.replay.bounds import AtOffset, AtTime, Committed, marked
from eventstore.replay.marks import Mark
from eventstore.replay.plan import Plan, progress, replay_group, running_into
from eventstore.replay.ranges import (
    Range,
    Ranges,
    aged_out,
    aged_out_since,
    behind_gaps,
    beyond_end,
    cut_off,
    nothing_in,
    ranges,
    refuse,
    sure_from,
    unknown_partitions,
)
from eventstore.replay.reset import undone
from eventstore.replay.scope import Scope, scoped, selection
from eventstore.replay.state import KEPT_MS, Replay, Status, forgettable
from eventstore.stream.offsets import Held
from eventstore.tenancy import Registry, Tenant
from tests.builders import NOW_MS, cluster, envelope, registry, tier

pytestmark = pytest.mark.unit

T15 = tier("t15", days=15, on=cluster("c15"))
T30 = tier("t30", on=cluster("c30"))
REGISTRY = replace(
    registry(Tenant("shop", T30), Tenant("forum", T15), Tenant("games", T30)),
    clusters={name: cluster(name) for name in ("c15", "c30", "c30b")},
)
HELD = {0: Held(100, 200), 1: Held(0, 50)}


def plan(ranges: Ranges | None = None, name: str = "r1", clusters: tuple[str, ...] = ("c30",)) -> Plan:
    return Plan(name, "events", replay_group("live", name), ranges or {0: Range(100, 200)}, Scope(), clusters, NOW_MS)


# ------------------------------------------------------------------------------------------------------------- scope


def names(meant: Registry) -> tuple[set[str], set[str]]:
    return set(meant.tenants), set(meant.clusters)


@pytest.mark.parametrize(
    ("scope", "tenants", "clusters"),
    [
        (Scope(), {"shop", "forum", "games"}, {"c15", "c30"}),
        (Scope(clusters=("c30",)), {"shop", "games"}, {"c30"}),
        (Scope(tiers=("t15",)), {"forum"}, {"c15"}),
        (Scope(tenants=("shop", "forum")), {"shop", "forum"}, {"c15", "c30"}),
        (Scope(tenants=("shop", "forum"), tiers=("t30",)), {"shop"}, {"c30"}),
        (Scope(tiers=("t30",), into="c30b"), {"shop", "games"}, {"c30b"}),
        (Scope(tiers=("t30",), into="c30"), {"shop", "games"}, {"c30"}),
    ],
)
def test_a_scope_leaves_only_what_it_means_of_the_registry(scope: Scope, tenants: set[str], clusters: set[str]) -> None:
    assert names(scoped(REGISTRY, scope)) == (tenants, clusters)


def test_into_keeps_the_tier_and_changes_only_its_cluster() -> None:
    meant = scoped(REGISTRY, Scope(tenants=("shop",), into="c30b"))
    assert meant.tenants["shop"].tier == replace(T30, cluster=cluster("c30b"))


@pytest.mark.parametrize(
    "scope", [Scope(clusters=("nowhere",)), Scope(tiers=("nowhere",)), Scope(tenants=("shop", "nowhere"))]
)
def test_an_unknown_name_is_refused(scope: Scope) -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        scoped(REGISTRY, scope)


@pytest.mark.parametrize(
    ("scope", "error", "said"),
    [
        (Scope(into="nowhere", tiers=("t30",)), ConfigurationError, "nowhere"),
        (Scope(tenants=("forum",), tiers=("t30",)), ConfigurationError, "found none"),
        (Scope(into="c30b"), RefusedError, "one tier, got t15, t30"),
        (Scope(tiers=("t30",), into="c15"), RefusedError, "found tier t15 on it"),
    ],
)
def test_a_scope_that_cannot_be_meant_is_refused(scope: Scope, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        scoped(REGISTRY, scope)


@pytest.mark.parametrize(
    ("key", "value", "picked"),
    [
        (b"shop:u1", envelope(event="seen"), True),
        (b"shop:u1", envelope(event="other"), False),
        (b"shop:u1", envelope(event="seen").replace(b"seen", b"\\u0073een"), True),
        (b"shop:u1", b"not an event", True),
        (b"forum:u1", envelope(tenant="forum", event="seen"), False),
        (b"shopping:u1", envelope(event="seen"), False),
        (None, envelope(event="seen"), False),
    ],
)
def test_a_selection_goes_by_the_key_and_the_events_name(key: bytes | None, value: bytes, *, picked: bool) -> None:
    scope = Scope(tiers=("t30",), events=("seen",))
    assert selection(scope, scoped(REGISTRY, scope)).picks(key, value) is picked


def test_without_filters_every_record_is_meant_even_one_without_a_key() -> None:
    chosen = selection(Scope(), REGISTRY)
    assert chosen.everything
    assert chosen.picks(None, None)


# ------------------------------------------------------------------------------------------------------------ ranges


def test_a_range_ends_where_the_topic_ends_and_never_before_its_start() -> None:
    assert ranges({0: 150, 1: 60}, {0: 900, 1: 50}, HELD) == {0: Range(150, 200), 1: Range(60, 60)}


def test_a_partition_in_which_nothing_was_committed_is_left_to_the_live_group() -> None:
    assert ranges({0: 100, 1: 0}, {0: 180}, HELD) == {0: Range(100, 180), 1: Range(0, 0)}


def told(problems: Iterator[str]) -> str:
    with pytest.raises(RefusedError) as refusal:
        refuse(problems)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_what_has_aged_out_is_named_with_the_first_offset_held_and_its_time() -> None:
    said = told(aged_out("events", {0: Range(40, 200), 1: Range(0, 50)}, HELD, {0: NOW_MS}))
    assert said.startswith("events/0: expected to begin at offset 40, but the first held is 100 of 2026-09-21T")
    assert "60 records are gone" in said
    assert "events/1" not in said


def test_a_range_that_ended_before_the_first_offset_held_is_gone_as_a_whole() -> None:
    assert "30 records are gone" in told(aged_out("events", {0: Range(40, 70)}, HELD, {}))


def test_a_range_that_reaches_beyond_the_end_of_the_topic_is_refused() -> None:
    said = told(cut_off("events", {0: Range(150, 210), 1: Range(0, 50), 2: Range(0, 1), 3: Range(9, 9)}, HELD))
    assert "events/0: expected records up to offset 210, found an end at 200" in said
    assert "events/2: expected records up to offset 1, found an end at 0" in said
    assert "events/1" not in said
    assert "events/3" not in said


def test_an_empty_range_is_refused() -> None:
    assert "found none" in told(nothing_in("events", {0: Range(5, 5)}))


def test_offsets_that_the_topic_has_not_reached_are_refused() -> None:
    assert "at most 200, where the topic ends, got 4711" in told(beyond_end("events", {0: 4711}, HELD))


def test_offsets_of_partitions_that_there_are_not_are_refused() -> None:
    assert "partitions 0 to 1, got 7" in told(unknown_partitions({7: 1}, HELD, "--from-offset"))


DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("since_ms", "config", "gone"),
    [
        (NOW_MS - 9 * DAY_MS, {"retention.ms": str(7 * DAY_MS)}, True),
        (NOW_MS - 2 * DAY_MS, {"retention.ms": str(7 * DAY_MS)}, False),
        (NOW_MS - 2 * DAY_MS, {"retention.ms": str(7 * DAY_MS), "retention.bytes": "1000000"}, True),
        (NOW_MS - 9 * DAY_MS, {"retention.ms": "-1"}, False),
    ],
)
def test_a_time_is_only_doubted_if_records_of_it_may_have_aged_out(
    since_ms: int, config: dict[str, str], *, gone: bool
) -> None:
    first_ms = {0: NOW_MS - DAY_MS}
    problems = list(aged_out_since("events", since_ms, HELD, first_ms, sure_from(config, NOW_MS)))
    assert bool(problems) is gone
    assert not any("events/1" in problem for problem in problems), "a partition that never let go of anything"


class Topic:
    topic = "events"

    def topic_id(self) -> str:
        return "now"


def mark(topic: str = "events", partitions: int = 2, topic_id: str | None = "now") -> Mark:
    offsets = dict.fromkeys(range(partitions), 120)
    return Mark(name="m", created_ms=0, topic=topic, topic_id=topic_id, group="live", offsets=offsets)


def test_a_mark_of_another_topic_is_refused() -> None:
    with pytest.raises(RefusedError, match="it is of another"):
        marked(mark(topic="another"), Topic(), HELD)


def test_a_mark_of_a_topic_that_was_created_anew_since_is_refused() -> None:
    with pytest.raises(RefusedError, match="deleted since"):
        marked(mark(topic_id="before"), Topic(), HELD)
    assert marked(mark(topic_id=None), Topic(), HELD), "one that was made before marks knew it"


def test_a_mark_from_before_partitions_were_added_is_refused() -> None:
    with pytest.raises(RefusedError, match="expected 1 partitions"):
        marked(mark(partitions=1), Topic(), HELD)
    assert marked(mark(), Topic(), HELD) == {0: 120, 1: 120}


def test_a_reset_is_undone_only_while_the_group_stands_where_it_was_put() -> None:
    made = replace_mark(mark(), reset_to={0: 50})
    assert undone(made, made.offsets, "live", {0: 50, 1: 120}) == {0: 120}
    for committed in ({0: 51, 1: 120}, {1: 120}):
        with pytest.raises(RefusedError, match="it has gone on since"):
            undone(made, made.offsets, "live", committed)
    with pytest.raises(RefusedError, match="it is of live"):
        undone(made, made.offsets, "other", {0: 50})


def test_behind_a_gap_a_replay_goes_on_with_the_first_record_held() -> None:
    left = {0: Range(40, 150), 1: Range(10, 50)}
    assert behind_gaps(left, HELD) == {0: 100}
    assert behind_gaps({0: Range(40, 70), 1: Range(0, 0)}, HELD) == {0: 70}, "all of it is gone"


# ----------------------------------------------------------------------------------------------------------- options


def test_exactly_one_beginning_is_wanted() -> None:
    with pytest.raises(ConfigurationError, match="got none"):
        one_of([("--last", None)])
    with pytest.raises(ConfigurationError, match="got --last, --from-offset"):
        one_of([("--last", AtTime(1)), ("--from-offset", AtOffset(2))])
    assert one_of([("--to-offset", None)], Committed()) == Committed()


def test_offsets_come_from_what_kafkas_own_tool_exports() -> None:
    assert parse_offsets("f", ['"events",0,12', "1, 7", ""], "events") == {0: 12, 1: 7}


@pytest.mark.parametrize("line", ["another,0,1", "0", "0,-1", "a,b,c", "0,1,2,3"])
def test_a_line_of_anything_else_is_refused(line: str) -> None:
    with pytest.raises(ConfigurationError, match="line 2"):
        parse_offsets("f", ["1,1", line], "events")


def test_a_partition_named_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="each partition once"):
        parse_offsets("f", ["0,1", "0,2"], "events")


# ------------------------------------------------------------------------------------------------- plan and progress


def test_two_replays_of_one_range_into_one_cluster_are_refused() -> None:
    mine = plan({0: Range(150, 160)})
    said = told(running_into(mine, [plan(name="other")]))
    assert "replay other" in said
    assert "--beside-others" in said


@pytest.mark.parametrize(
    "other",
    [
        plan({0: Range(200, 300)}, "other"),
        plan({1: Range(100, 200)}, "other"),
        plan(name="other", clusters=("c15",)),
        plan(name="r1"),
    ],
)
def test_replays_that_share_no_work_may_run_at_once(other: Plan) -> None:
    assert list(running_into(plan(), [other])) == []


def test_a_group_begins_at_the_plan_where_it_has_committed_nothing() -> None:
    made = plan({0: Range(100, 200), 1: Range(50, 50)})
    assert made.start_offsets({}) == {0: 100, 1: 50}
    assert made.start_offsets({0: 150}) == {1: 50}


def test_progress_is_what_the_group_has_committed() -> None:
    made = plan({0: Range(100, 200), 1: Range(50, 50)})
    assert progress(made, {}).done == 0
    half = progress(made, {0: 150, 1: 50})
    assert (half.done, half.total, half.finished) == (50, 100, False)
    assert half.left() == {0: Range(150, 200), 1: Range(50, 50)}
    assert progress(made, {0: 200, 1: 50}).finished


def test_an_ended_replay_cannot_be_taken_up_again() -> None:
    running = Replay(plan(), Status.RUNNING, 0)
    paused = running.become(Status.PAUSED, 1)
    assert paused.become(Status.RUNNING, 2).status is Status.RUNNING
    for end in (Status.DONE, Status.CANCELLED):
        with pytest.raises(RefusedError, match=f"it is {end.value}"):
            paused.become(end, 2).become(Status.RUNNING, 3)


def test_only_replays_that_ended_long_ago_are_forgotten() -> None:
    states = [Replay(plan(name=status.value), status, 0) for status in Status]
    gone = Counter(each.status for each in forgettable(states, KEPT_MS + 1))
    assert gone == {Status.DONE: 1, Status.CANCELLED: 1}
    assert not list(forgettable(states, KEPT_MS))
