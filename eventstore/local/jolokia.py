"""What nodetool would do to an embedded Cassandra, over HTTP: the Jolokia agent inside it answers on a loopback port."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

import httpx

from eventstore.errors import LocalStackError

POLICY: Final = "management.xml"
"""The configuration file that says what the agent may be asked."""
REQUEST_SECONDS: Final = 300.0
"""A flush or an import moves whole tables."""
ORIGIN: Final = "http://eventstore"
"""Only requests with this origin are answered: a browser does not let a page choose its own."""
STORAGE: Final = "org.apache.cassandra.db:type=StorageService"
_OPERATIONS: Final = {
    STORAGE: ("takeSnapshot", "clearSnapshot", "forceKeyspaceFlush", "bulkLoad"),
}


def policy() -> str:
    """Only what backups need (`*`: whatever the signature), only from this machine, and never from a web page: the agent asks for no password."""
    allowed = "".join(
        f"<mbean><name>{name}</name>{''.join(f'<operation>{each}*</operation>' for each in operations)}</mbean>"
        for name, operations in _OPERATIONS.items()
    )
    return (
        "<restrict><remote><host>127.0.0.0/8</host></remote><http><method>post</method></http><commands/>"
        f"<allow>{allowed}</allow><cors><allow-origin>{ORIGIN}</allow-origin><strict-checking/></cors></restrict>\n"
    )


class Jolokia:
    """The management interface of one node."""

    def __init__(self, node: str, address: str, port: int) -> None:
        self._node = node
        self._url = f"http://{address}:{port}/jolokia/"

    def execute(self, bean: str, operation: str, arguments: Sequence[Any]) -> Any:
        """Call an operation, by its whole signature if it is overloaded; gives what it returns.

        Raises:
            LocalStackError: the agent does not answer, or the operation failed.
        """
        request = {"type": "exec", "mbean": bean, "operation": operation, "arguments": list(arguments)}
        asked = f"{self._node}: {operation.partition('(')[0]}"
        try:
            # no proxy that the environment names: it is this machine
            with httpx.Client(timeout=REQUEST_SECONDS, trust_env=False, headers={"Origin": ORIGIN}) as client:
                answer = client.post(self._url, json=request).json()
        except (httpx.HTTPError, ValueError) as error:
            raise LocalStackError(
                f"{asked}: expected an answer from {self._url}, got {type(error).__name__}: {error}; is it running "
                "(`eventstore local status`), and was it started by this version (`eventstore local down`, then `up`)?"
            ) from error
        if answer.get("status") != HTTPStatus.OK:
            told = " ".join(str(answer.get("error", answer)).split())[:400]
            raise LocalStackError(
                f"{asked}: expected it to succeed, got: {told}; see `eventstore local logs {self._node}`"
            )
        return answer.get("value")
