"""The demo's gateway: like the servers it stays until `eventstore demo down`, and serves the profile page."""

import subprocess
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import msgspec

from eventstore.config import GatewaySettings
from eventstore.errors import EventstoreError
from eventstore.local import process
from eventstore.tenancy import KeyUse

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.1


class DemoKeys(msgspec.Struct, frozen=True):
    """The registry keeps digests only; the demo keeps its keys, so that a second run can show them again."""

    tenant: str
    read: str
    write: str


def keys_of(tenant: str, kept: Path, create: Callable[[str, KeyUse], str]) -> DemoKeys:
    """The keys that an earlier run has made for this tenant, or new ones."""
    if kept.exists():
        found = msgspec.json.decode(kept.read_bytes(), type=DemoKeys)
        if found.tenant == tenant:
            return found
    made = DemoKeys(tenant, create(tenant, KeyUse.READ), create(tenant, KeyUse.WRITE))
    kept.touch(mode=0o600)
    kept.write_bytes(msgspec.json.encode(made))
    return made


def start(directory: Path, settings: GatewaySettings) -> None:
    """Have a gateway run that answers; its log and process file are in the directory.

    Raises:
        EventstoreError: it ended, or did not answer in time.
    """
    directory.mkdir(exist_ok=True)
    if process.find(directory) is None:
        # Python ignores options of -X that it does not know: by this one the process is told from all others
        process.spawn(directory, [sys.executable, "-X", process.mark(directory), "-m", "eventstore", "gateway"])
    deadline = time.monotonic() + START_SECONDS
    while not _answers(settings):
        if process.find(directory) is None or time.monotonic() > deadline:
            raise EventstoreError(
                f"the gateway: expected an answer on port {settings.port}, got none; see {directory / process.LOG_FILE}"
            )
        time.sleep(POLL_SECONDS)


def stop(directory: Path) -> None:
    """End it, if it runs."""
    if found := process.find(directory):
        process.stop(found, STOP_SECONDS)


def created(tenant: str, use: KeyUse) -> str:
    """A new key, made as an operator makes one.

    Raises:
        EventstoreError: `eventstore keys create` failed; it has said why.
    """
    command = [sys.executable, "-m", "eventstore", "keys", "create", tenant, "--use", use.value, "--json"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if answer.returncode != 0:
        raise EventstoreError(f"`eventstore keys create {tenant}` ended with exit code {answer.returncode}")
    key: str = msgspec.json.decode(answer.stdout)["key"]
    return key


def _answers(settings: GatewaySettings) -> bool:
    connection = HTTPConnection(settings.host, settings.port, timeout=1.0)
    try:
        connection.request("GET", "/ui")
        return connection.getresponse().status < 500  # noqa: PLR2004 — the first status of a server's own faults
    except OSError:
        return False
    finally:
        connection.close()
