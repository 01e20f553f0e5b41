"""The whole journey of some records. When `run` returns, nothing of them can be lost any more."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from prometheus_client import Histogram

from eventstore import metrics
from eventstore.errors import CircuitOpenError
from eventstore.events import Coordinates, Rejected
from eventstore.ingest.express import Express, Sorted, admitted_to
from eventstore.ingest.grouping import BatchLimit, cut
from eventstore.ingest.outlet import Outlet
from eventstore.ingest.rejects import RejectLimit, RejectWindow
from eventstore.stream.chunk import Record, Records
from eventstore.stream.dead_letters import Reject
from eventstore.tenancy import Registry


class DeadLetters(Protocol):
    async def send(self, rejects: Sequence[Reject]) -> None:
        """Returns when Kafka has confirmed every one."""
        ...


class Diverts(Protocol):
    async def send(self, cluster: str, records: Sequence[Record]) -> None:
        """Returns when Kafka has confirmed every one in the cluster's retry topic."""
        ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What turns records into acknowledged rows."""

    registry: Callable[[], Registry]
    """The registry in force; asked once a run, so that an edit takes effect at the next one."""
    outlet: Callable[[str], Outlet]
    """Where a cluster's rows are stored."""
    dead_letters: DeadLetters
    clock: Callable[[], int]
    """Microseconds since the epoch."""
    express: Express
    diverts: Diverts | None = None
    """Where records wait while their cluster's circuit is open; without it an open circuit fails the run."""
    limit: BatchLimit = field(default_factory=BatchLimit)
    rejects: RejectWindow = field(default_factory=lambda: RejectWindow(RejectLimit()))
    freshness: Histogram | None = metrics.FRESHNESS
    """Takes the time from Kafka's timestamp to the acknowledgement; None where that tells nothing of live traffic."""
    tenants: metrics.TenantCounts = field(default_factory=metrics.TenantCounts)

    async def run(self, records: Records) -> None:
        """Store, expire, leave out (erased), divert or dead-letter every one of the records.

        Raises:
            RefusedError: suspiciously many records are rejected; these are not in the dead letters.
            StoreError: a cluster refuses a write, or went on failing and its records cannot be diverted.
            KafkaError: a reject or a diverted record could not be written to its topic.
        """
        found = self.express.sort(records, self.registry(), self.clock())
        self.rejects.add(len(records), (rejected.reason for rejected, _ in found.rejects), monotonic())
        await _all_of(
            [
                *(self.store(self.outlet(name), name, found, records) for name in found.batches),
                *([self.dead_letter([_reject(*each) for each in found.rejects])] if found.rejects else []),
            ]
        )
        for tier, count in found.expired.items():
            metrics.EXPIRED.labels(tier).inc(count)
        metrics.ERASED.inc(found.erased)
        self.tenants.add("accepted", found.tenants)
        if found.rejects:
            self.tenants.add("rejected", _claimed(found.rejects, found.admission.registry))

    async def store(self, outlet: Outlet, cluster: str, found: Sorted, records: Records) -> None:
        rows = found.batches[cluster]
        batches = list(cut(rows, self.limit))
        in_flight = metrics.IN_FLIGHT_BATCHES.labels(cluster)
        in_flight.inc(len(batches))
        try:
            await outlet.store(batches)
            metrics.STORED.labels(cluster).inc(sum(map(len, rows)))
            if self.freshness is not None:
                self._observe(self.freshness.labels(cluster), records)
        except CircuitOpenError:
            if self.diverts is None:
                raise
            diverted = list(admitted_to(cluster, records, found.admission))
            await self.diverts.send(cluster, diverted)
            metrics.DIVERTED.labels(cluster).inc(len(diverted))
        finally:
            in_flight.dec(len(batches))

    def _observe(self, freshness: Histogram, records: Records) -> None:
        if (published_ms := records.published_ms) >= 0:
            freshness.observe(max(0.0, self.clock() / 1e6 - published_ms / 1e3))

    async def dead_letter(self, rejects: Sequence[Reject]) -> None:
        await self.dead_letters.send(rejects)
        for reason, count in Counter(reject.rejected.reason for reject in rejects).items():
            metrics.REJECTED.labels(reason.value).inc(count)


async def _all_of(steps: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All steps to their end: one that fails does not cut the others short. Then the first failure is raised."""
    outcomes = await asyncio.gather(*steps, return_exceptions=True)
    if (failure := next((each for each in outcomes if each is not None), None)) is not None:
        raise failure


def _claimed(rejects: Iterable[tuple[Rejected, Record]], registry: Registry) -> Counter[str]:
    """How many by the tenant that their key names, if there is one of that name: hostile keys must not become labels."""
    names = ((record.key() or b"").partition(b":")[0].decode(errors="replace") for _, record in rejects)
    return Counter(name for name in names if name in registry.tenants)


def _reject(rejected: Rejected, record: Record) -> Reject:
    return Reject(
        rejected=rejected,
        coordinates=Coordinates(record.topic(), record.partition(), record.offset()),
        key=record.key(),
        value=record.value(),
        headers=record.headers() or [],
        timestamp_ms=record.timestamp()[1],
    )
