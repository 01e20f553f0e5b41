"""Gateways as real processes, and keys for them."""

import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from typing import Any, NamedTuple

import msgspec

from eventstore.tenancy import KeyUse
from eventstore.tenancy.keys import digest_of, key_text
from tests.waiting import until
from tests.world import World


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


async def no_body() -> dict[str, Any]:
    """What is received of a request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


def key(tenant: str, use: KeyUse) -> str:
    """A tenant's key; always the same one."""
    return key_text(use, digest_of(tenant).encode()[:32])


def with_keys(tenant: str, **fields: Any) -> dict[str, Any]:
    """A tenant's entry in a registry, with one key of each use."""
    return {**fields, "keys": [{"use": use.value, "sha256": digest_of(key(tenant, use))} for use in KeyUse]}


@dataclass(slots=True)
class GatewayUnderTest:
    process: "subprocess.Popen[bytes]"
    port: int
    tls: ssl.SSLContext | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, key: str | None = None, **headers: str
    ) -> Answer:
        """One request on a connection of its own; header names with underscores for hyphens."""
        connection = (
            HTTPConnection("127.0.0.1", self.port, timeout=60)
            if self.tls is None
            else HTTPSConnection("127.0.0.1", self.port, timeout=60, context=self.tls)
        )
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            if key is not None:
                named["authorization"] = f"Bearer {key}"
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return Answer(response.status, {n.lower(): v for n, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, path: str, value: Any, *, key: str | None = None, **headers: str) -> Answer:
        return self.ask("POST", path, msgspec.json.encode(value), key=key, **headers)

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_gateway(
    world: World, *options: str, port: int | None = None, tls: ssl.SSLContext | None = None, **environment: str
) -> Iterator[GatewayUnderTest]:
    """A gateway that answers, over TLS if a context is given; its log goes where the workers' goes."""
    port = port or free_port()
    with world.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "eventstore", "gateway", *options],
            env=world.environment | {"EVENTSTORE_GATEWAY__PORT": str(port)} | environment, stdout=log, stderr=log,
        )  # fmt: skip
    world.workers.append(process)  # the world ends whatever is left of them
    gateway = GatewayUnderTest(process, port, tls)
    until(lambda: _answers(gateway), f"the gateway to answer, see {world.log.read_text()}")
    try:
        yield gateway
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _answers(gateway: GatewayUnderTest) -> bool:
    assert gateway.process.poll() is None, "the gateway has ended"
    try:
        return gateway.ask("GET", "/").status < 500
    except OSError:
        return False
