"""One tenant's flood of a gateway, from a process of its own: `python -m tests.benchmarks.flooder FLOOD`."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import uvloop

from eventstore.tenancy import KeyUse
from tests.benchmarks.requests import Client, post
from tests.gateways import key

LEAD_SECONDS = 1.0
"""Before what is measured beside it, and after."""


class Flood(msgspec.Struct, frozen=True):
    port: int
    tenant: str
    batch: int
    """Events of a request."""
    rate: float
    """Requests a second."""
    seconds: float


class Flooded(msgspec.Struct, frozen=True):
    """What became of its requests."""

    accepted: int
    refused: int
    """With 429."""


@contextmanager
def flooding(flood: Flood) -> Iterator["subprocess.Popen[bytes]"]:
    """The process, which has begun and goes on for as long as it was told."""
    command = [sys.executable, "-m", "tests.benchmarks.flooder", msgspec.json.encode(flood).decode()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"begun\n", "the flood failed; see its error above"
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(process: "subprocess.Popen[bytes]") -> Flooded:
    """Wait for its end."""
    assert process.stdout is not None
    return msgspec.json.decode(process.stdout.readline(), type=Flooded)


async def _flood(flood: Flood) -> Flooded:
    event = {"type": "track", "userId": "u1", "event": "viewed", "properties": {"page": "x" * 400}}
    body = msgspec.json.encode({"batch": [event] * flood.batch})
    request = post("/v1/batch", key(flood.tenant, KeyUse.WRITE), body)
    async with Client(flood.port, 200, 429) as client:
        await client.ask(request)
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        await client.paced(lambda _: request, flood.rate, flood.seconds)
    return Flooded(client.statuses[200], client.statuses[429])


def main() -> None:
    flood = msgspec.json.decode(sys.argv[1], type=Flood)
    sys.stdout.write(f"{msgspec.json.encode(uvloop.run(_flood(flood))).decode()}\n")


if __name__ == "__main__":
    main()
