"""One process of a replay: a member of its group that stores the records of the plan's ranges."""

import asyncio
import faulthandler
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import structlog
import uvloop

from eventstore.clock import now_micros
from eventstore.config import GroupProtocol, Settings, WorkerSettings
from eventstore.errors import ExitCode, KafkaError
from eventstore.events.erasure import Erasures
from eventstore.ingest.admission import ClockRules
from eventstore.ingest.express import Express
from eventstore.ingest.grouping import BatchLimit
from eventstore.ingest.outlet import Direct
from eventstore.ingest.pipeline import Pipeline
from eventstore.ingest.rate import RateLimit
from eventstore.ingest.rejects import RejectLimit, RejectWindow
from eventstore.ingest.retry import RetryPolicy
from eventstore.registry import load_registry
from eventstore.replay.plan import Plan
from eventstore.replay.run import CountedRejects, Runner, work_through
from eventstore.replay.scope import scoped, selection
from eventstore.replay.state import Replays
from eventstore.store.opening import open_writer
from eventstore.stream.assignment import ConsumerPolicy, Place
from eventstore.stream.consumer import ChunkConsumer, unheeded
from eventstore.stream.erasures import ErasureTable
from eventstore.stream.group import consumer_policy, group_config
from eventstore.tenancy import Registry, Tier
from workers.process import bound_the_end, on_stop_signals, orphaned, settle_garbage

log = structlog.stdlib.get_logger(__name__)

CHUNKS_PER_SECOND = 10
"""Under a rate limit: small chunks, so that a stop need not wait for what has been granted."""


def main(settings: Settings, replay_id: str, index: int, of: int) -> ExitCode:
    """Do a share of a replay until told to stop; its account goes to standard output as one line of JSON.

    Args:
        settings: as the live workers have them; the group is the replay's own.
        replay_id: whose plan is followed.
        index: of this process among all of the replay, from 0. Another process of the same index takes its place.
        of: how many processes share the rate.

    Raises:
        EventstoreError: what ended it; nothing unfinished was committed.
    """
    plan = Replays.of(settings).get(replay_id).plan
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(ReplayWorker(settings, plan, index, of).run())
    finally:
        faulthandler.cancel_dump_traceback_later()
    return ExitCode.DONE


@dataclass(slots=True)
class ReplayWorker:
    settings: Settings
    plan: Plan
    index: int
    of: int
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        on_stop_signals(self._asked_to_stop)
        async with AsyncExitStack() as stack:
            runner, erasures = await self._prepare(stack)
            await self._run(runner, erasures)
        log.info("replay worker stopped", **runner.meter.figures())
        sys.stdout.buffer.write(msgspec.json.encode(runner.account()) + b"\n")
        sys.stdout.buffer.flush()

    def _asked_to_stop(self) -> None:
        self.stop.set()
        bound_the_end(self.settings.worker.drain_timeout)

    async def _prepare(self, stack: AsyncExitStack) -> tuple[Runner, "asyncio.Task[None]"]:
        meant = scoped(load_registry(self.settings.registry), self.plan.scope)
        outlets = {}
        for tier in meant.tiers.values():
            outlets[tier.cluster.name] = await self._outlet(tier, stack)
        erasures = Erasures()
        table = ErasureTable(self.settings.kafka, self.settings.topics.erasures)
        hearing = await stack.enter_async_context(table.follow(erasures))
        rejects = CountedRejects()
        pipeline = self._pipeline(meant, outlets, rejects, erasures)
        limit = RateLimit(self.plan.rate / self.of) if self.plan.rate is not None else None
        return Runner(pipeline, rejects, selection(self.plan.scope, meant), limit), hearing

    async def _outlet(self, tier: Tier, stack: AsyncExitStack) -> Direct:
        """Without a circuit: nobody waits for a replay, and what it cannot store now it does when it is resumed."""
        settings = self.settings.writer
        writer = await open_writer(tier, settings)
        stack.push_async_callback(writer.close)
        return Direct(writer, RetryPolicy(settings.backoff_base, settings.backoff_max, settings.retry_deadline))

    def _pipeline(
        self, meant: Registry, outlets: dict[str, Direct], rejects: CountedRejects, erasures: Erasures
    ) -> Pipeline:
        writer, worker = self.settings.writer, self.settings.worker
        return Pipeline(
            registry=lambda: meant,  # of one replay all records are routed alike; an edit takes effect at a resume
            outlet=outlets.__getitem__,
            dead_letters=rejects,
            clock=now_micros,
            express=Express(ClockRules(worker.max_future, worker.late_after), erasures),
            limit=BatchLimit(writer.batch_rows, writer.batch_bytes),
            rejects=RejectWindow(RejectLimit(share=1)),  # nothing drains anywhere: they are only counted
        )

    async def _run(self, runner: Runner, erasures: "asyncio.Task[None]") -> None:
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def died(error: KafkaError) -> None:
            if not failed.done():
                failed.set_exception(error)

        member = self._member(died)
        await asyncio.to_thread(member.start, [self.plan.topic])
        settle_garbage()
        working = asyncio.create_task(work_through(member, runner.run))
        leaving: list[asyncio.Future[Any]] = [asyncio.ensure_future(self.stop.wait()), asyncio.create_task(orphaned())]
        ends: list[asyncio.Future[Any]] = [working, failed, erasures, *leaving]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            bound_the_end(self.settings.worker.drain_timeout)
            await (member.stop() if done <= set(leaving) else member.abort())
        finally:
            for each in ends:
                each.cancel()
            outcomes = await asyncio.gather(*ends, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def _member(self, died: Callable[[KafkaError], None]) -> ChunkConsumer:
        worker = self._member_settings()
        ends = {Place(self.plan.topic, partition): end for partition, end in self.plan.ends().items()}
        policy: ConsumerPolicy = replace(consumer_policy(worker), ends=ends)
        return ChunkConsumer(group_config(self.settings.kafka, worker), policy, unheeded, died)

    def _member_settings(self) -> WorkerSettings:
        worker = self.settings.worker
        chunk = worker.chunk_records
        if self.plan.rate is not None:
            chunk = max(1, min(chunk, int(self.plan.rate / self.of / CHUNKS_PER_SECOND)))
        return worker.model_copy(
            update={
                "group": self.plan.group,
                # whoever resumes takes the place of a member that died, or that is cut off and believes to be alive
                "instance_id": f"{self.plan.group}-{self.index}",
                # under KIP-848 the place of a dead static member is free only when its session has ended
                "group_protocol": GroupProtocol.CLASSIC,
                "chunk_records": chunk,
            }
        )
