"""The contest: the same events into the same store by four contestants, taking turns; each must store every event once."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from uuid import uuid4

import msgspec

from eventstore.config import WritePath
from tests.benchmarks import data, worker
from tests.benchmarks.arena import Load, Target
from tests.benchmarks.bench import Bench
from tests.benchmarks.results import host_load
from tests.benchmarks.sinks.job import Job

SCENARIO = "contest"
STOCK_SHARE = 0.1
"""Stock Faust is so slow that a tenth of the events says as much."""
FOREIGN_SECONDS = 600.0

Contestant = Callable[[Bench, Load, Target], dict[str, float]]


def compete(bench: Bench, names: list[str]) -> None:
    """Every chosen contestant once a round."""
    now, events = bench.now_ms, bench.scale.events
    whole = bench.arena.load(data.wikipedia(events, now))
    less = bench.arena.load(data.wikipedia(bench.scale.part(STOCK_SHARE), now))
    with bench.arena.keyspace(whole.data.tenants) as target:  # a node that has just started is three times slower
        worker.ingest(bench.arena, whole, target)
    for _ in range(bench.scale.rounds):
        for name in names:
            load = less if name == "stock" else whole
            with bench.arena.keyspace(load.data.tenants) as target:
                figures = CONTESTANTS[name](bench, load, target)
                bench.arena.check(target, load.users)
            bench.record(SCENARIO, name, {"events": load.events} | figures)


def foreign(module: str) -> Contestant:
    def run(bench: Bench, load: Load, target: Target) -> dict[str, float]:
        cluster = target.cluster
        job = Job(
            bench.arena.bootstrap_servers, load.topic, load.events, f"bench-{uuid4().hex[:12]}",
            cluster.contact_points[0], cluster.port, cluster.datacenter, cluster.keyspace,
        )  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", f"tests.benchmarks.sinks.{module}", msgspec.json.encode(job).decode()],
            capture_output=True, text=True, check=False, timeout=FOREIGN_SECONDS, cwd=worker.REPOSITORY,
        )  # fmt: skip
        assert done.returncode == 0, f"{module} failed: {done.stderr[-2_000:]}"
        figures: dict[str, float] = msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, float])
        return figures | {"host_load": host_load()}

    return run


def ours(path: WritePath) -> Contestant:
    def run(bench: Bench, load: Load, target: Target) -> dict[str, float]:
        return worker.ingest(bench.arena, load, target, EVENTSTORE_WRITER__PATH=path.value).figures

    return run


CONTESTANTS: Mapping[str, Contestant] = {
    "stock": foreign("stock"),
    "simple": foreign("simple"),
    "driver": ours(WritePath.DRIVER),
    "lane": ours(WritePath.LANE),
}
