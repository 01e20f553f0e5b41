"""The bottomless store: a process that acknowledges every batch at once, so that only the worker's own limit counts."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from eventstore.local.probe import speaks_cql
from eventstore.tenancy import Cluster
from tests.fake_cql import DATACENTER, KEYSPACE, free_port
from tests.waiting import until

ADDRESS = "127.0.0.1"


@contextmanager
def running_sink() -> Iterator[tuple[Cluster, int]]:
    """(the cluster it stands for, its process id)."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fake_cql", "--port", str(port)], stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: speaks_cql(ADDRESS, port), "the sink to listen", 20)
        yield Cluster("sink", (ADDRESS,), port, DATACENTER, KEYSPACE, 1), process.pid
    finally:
        process.kill()
        process.wait()
