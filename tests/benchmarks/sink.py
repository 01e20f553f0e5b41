"""The bottomless store: a process that acknowledges every batch at once, so that only the worker's own limit counts.

`python -m tests.benchmarks.sink PORT` answers a worker's questions about the schema as a real cluster would.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from string import Template
from typing import Any

import uvloop

from eventstore.events.cells import TableName
from eventstore.local.probe import speaks_cql
from eventstore.store.ddl import render_options
from eventstore.store.dialect import Dialect, keyspace_options, table_options
from eventstore.store.lane.frames import Opcode
from eventstore.store.statements import statement
from eventstore.tenancy import Cluster
from tests.builders import tier
from tests.cql_values import TEXT, rows_result
from tests.fake_cql import DATACENTER, KEYSPACE, FakeNode, FakeRing, free_port
from tests.waiting import until

ADDRESS = "127.0.0.1"
READY_SECONDS = 20.0


@contextmanager
def running_sink() -> Iterator[tuple[Cluster, int]]:
    """(the cluster it stands for, its process id)."""
    cluster = _cluster(free_port())
    process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.sink", str(cluster.port)])
    try:
        until(lambda: speaks_cql(ADDRESS, cluster.port), "the sink to listen", READY_SECONDS)
        yield cluster, process.pid
    finally:
        process.kill()
        process.wait()


class SinkNode(FakeNode):
    """A fake node that knows the schema of a tier of 30 days."""

    def query(self, cql: str) -> tuple[int, bytes]:
        if cql.startswith("DESCRIBE"):
            kind, what = ("keyspace", "keyspace") if "KEYSPACE" in cql else ("table", cql.rpartition(".")[2])
            return _rows({"keyspace_name": KEYSPACE, "type": kind, "name": "any", "create_statement": self._ddl(what)})
        if "system_schema.tables" in cql:
            tables = TableName if f"'{KEYSPACE}'" in cql else ("tables",)
            return _rows(*({"table_name": str(table)} for table in tables))
        return super().query(cql)

    def _ddl(self, what: str) -> str:
        schema = tier(on=_cluster(self.ring.port))
        options = (
            keyspace_options(schema, Dialect.CASSANDRA)
            if what == "keyspace"
            else table_options(TableName(what), schema, Dialect.CASSANDRA)
        )
        return Template(statement(f"create_{what}")).substitute(keyspace=KEYSPACE, options=render_options(options))


def _rows(*rows: dict[str, Any]) -> tuple[int, bytes]:
    return Opcode.RESULT, rows_result("SELECT * FROM any", dict.fromkeys(rows[0], TEXT), rows)


def _cluster(port: int) -> Cluster:
    return Cluster("sink", (ADDRESS,), port, DATACENTER, KEYSPACE, replication=1)


async def _serve(port: int) -> None:
    ring = FakeRing(port)
    node = SinkNode(ADDRESS, ring, FakeRing(port).add(ADDRESS).tokens, sink=True)
    ring.nodes.append(node)
    await node.start()
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        uvloop.run(_serve(int(sys.argv[1])))
