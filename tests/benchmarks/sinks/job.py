"""What every foreign contestant is told, what it reports, and the clock that it is measured by."""

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import msgspec
from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.policies import DCAwareRoundRobinPolicy, TokenAwarePolicy
from cassandra.query import PreparedStatement

RETENTION_SECONDS = 30 * 86_400
BUCKET_MS = 10 * 86_400_000
INSERT = (
    "INSERT INTO events (uid, tenant, bid, ts, eid, event, properties, context)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?"
)


class Job(msgspec.Struct, frozen=True):
    bootstrap_servers: str
    topic: str
    events: int
    group: str
    contact_point: str
    port: int
    datacenter: str
    keyspace: str

    @classmethod
    def from_arguments(cls) -> "Job":
        return msgspec.json.decode(sys.argv[1], type=cls)

    def session(self) -> tuple[Session, PreparedStatement]:
        """The driver as its documentation recommends it."""
        policy = TokenAwarePolicy(DCAwareRoundRobinPolicy(local_dc=self.datacenter))
        profile = ExecutionProfile(load_balancing_policy=policy, consistency_level=ConsistencyLevel.LOCAL_QUORUM)
        cluster = Cluster(
            [self.contact_point], self.port, protocol_version=4, execution_profiles={EXEC_PROFILE_DEFAULT: profile}
        )
        session = cluster.connect(self.keyspace)
        return session, session.prepare(INSERT)


@dataclass(slots=True)
class Clock:
    """From the first record to the last acknowledgement, of the whole process."""

    events: int = 0
    batches: int = 0
    latencies: list[float] = field(default_factory=list)
    _wall: float = 0.0
    _cpu: float = 0.0

    def begin(self) -> None:
        if not self._wall:
            self._wall, self._cpu = time.perf_counter(), time.process_time()

    def report(self) -> dict[str, Any]:
        """The figures of a contestant, by the names of `results.UNITS`."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        cuts = quantiles(self.latencies, n=100, method="inclusive")
        return {
            "cpu_us": round(cpu / self.events * 1e6, 2),
            "per_second": round(self.events / wall),
            "peak_mb": round(_peak_mb(), 1),
            "batches": self.batches,
            "rows_per_batch": round(self.events / self.batches, 2),
            "write_p50_ms": round(cuts[49] * 1_000, 2),
            "write_p99_ms": round(cuts[98] * 1_000, 2),
        }

    def print_report(self) -> None:
        os.write(1, b"\n" + msgspec.json.encode(self.report()) + b"\n")  # Faust takes sys.stdout for itself


def _peak_mb() -> float:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6


def remaining_ttl(ts_ms: int) -> int:
    return RETENTION_SECONDS - (int(time.time()) - ts_ms // 1_000)
