"""What a row costs each writer, in CPU of this process: against a server that only counts, and against a real one.

    python -m tests.benchmarks.writers [--rows 20000] [--rounds 5]

Rows are encoded before the clock starts: what is measured is routing, framing, sending and acknowledging. The writers
take turns, so that a busy machine is busy for both; each figure is the median of its rounds.
"""

import argparse
import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from uuid import uuid4

import uvloop
from rich.console import Console
from rich.table import Table

from eventstore.events.cells import Batch
from eventstore.local.probe import speaks_cql
from eventstore.registry import load_registry
from eventstore.store.driver_writer import DriverWriter
from eventstore.store.lane.writer import LaneWriter
from eventstore.store.schema import apply_schema
from eventstore.store.session import close, connect
from eventstore.store.writer import EventWriter
from eventstore.tenancy import Cluster
from tests.builders import batch, cluster, row
from tests.fake_cql import free_port
from tests.stacks import running_stack
from tests.waiting import until

IN_FLIGHT = 256
PATIENCE = 60.0
"""Seconds: a store beyond its limit is slow, which is no failure here."""
CONCURRENT_CALLS = 8
ROWS_A_CALL = 2_000
BATCH_ROWS = (1, 5, 30)
PROPERTIES = b'{"title": "%s"}' % (b"x" * 300)


@contextmanager
def fake() -> Iterator[Cluster]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "tests.fake_cql", "--port", str(port)], stdout=subprocess.DEVNULL)
    try:
        until(lambda: speaks_cql("127.0.0.1", port), "the fake server")
        yield cluster("fake", port=port)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def real() -> Iterator[Cluster]:
    with running_stack() as stack:
        tier = load_registry(stack.registry_path).tiers["t15"]
        own = replace(tier, cluster=replace(tier.cluster, keyspace=f"bench_{uuid4().hex[:12]}"))
        session = connect(own.cluster, request_timeout=60.0)
        try:
            apply_schema(session, own)
            yield own.cluster
            session.execute(f"DROP KEYSPACE {own.cluster.keyspace}")
        finally:
            close(session)


def calls(rows: int, batch_rows: int) -> list[list[Batch]]:
    """Batches as calls of `write`: each batch a partition of its own."""
    batches = [
        batch(
            *(
                row(uid=f"user{start + number // 2}", number=number, properties=PROPERTIES)
                for number in range(batch_rows)
            )
        )
        for start in range(0, rows, batch_rows)
    ]
    size = max(1, ROWS_A_CALL // batch_rows)
    return [batches[start : start + size] for start in range(0, len(batches), size)]


async def cost(writer: EventWriter, work: Sequence[list[Batch]], rows: int) -> tuple[float, float]:
    """(CPU microseconds a row, rows a second)."""
    turn = asyncio.Semaphore(CONCURRENT_CALLS)

    async def call(batches: list[Batch]) -> None:
        async with turn:
            if failures := await writer.write(batches):
                raise failures[0].error

    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*map(call, work))
    return (time.process_time() - cpu) / rows * 1e6, rows / (time.perf_counter() - wall)


async def compare(to: Cluster, rows: int, rounds: int) -> list[tuple[str, ...]]:
    """One line a batch size: CPU a row of the driver and of the lane, their ratio, rows a second."""
    sessions = [await asyncio.to_thread(connect, to, request_timeout=PATIENCE) for _ in range(2)]
    driver = await DriverWriter.open(to, sessions[0], IN_FLIGHT)
    lane = await LaneWriter.open(to, sessions[1], IN_FLIGHT, PATIENCE)
    lines: list[tuple[str, ...]] = []
    try:
        for batch_rows in BATCH_ROWS:
            work = calls(rows, batch_rows)
            taken = [(await cost(driver, work, rows), await cost(lane, work, rows)) for _ in range(rounds)]
            (cpu, rate), (lane_cpu, lane_rate) = (
                tuple(median(figures) for figures in zip(*rounds_of, strict=True))
                for rounds_of in zip(*taken, strict=True)
            )
            lines.append((
                f"{batch_rows}", f"{cpu:.1f}", f"{lane_cpu:.2f}", f"{cpu / lane_cpu:.0f}x", f"{rate:,.0f}", f"{lane_rate:,.0f}",
            ))  # fmt: skip
    finally:
        await driver.close()
        await lane.close()
    return lines


def main() -> None:
    arguments = argparse.ArgumentParser(description="CPU a row of the two writers.")
    arguments.add_argument("--rows", type=int, default=20_000)
    arguments.add_argument("--rounds", type=int, default=5)
    chosen = arguments.parse_args()
    table = Table(title="CPU microseconds a row, rows a second")
    for heading in ("server", "rows a batch", "driver us", "lane us", "ratio", "driver rows/s", "lane rows/s"):
        table.add_column(heading, justify="left" if heading == "server" else "right")
    for name, server in (("counts only", fake), ("Cassandra", real)):
        with server() as to:
            for line in uvloop.run(compare(to, chosen.rows, chosen.rounds)):
                table.add_row(name, *line)
    Console().print(table)


if __name__ == "__main__":
    main()
