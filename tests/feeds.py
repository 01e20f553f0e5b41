"""Readers of live feeds, over HTTP as any client would."""

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from tests.gateways import GatewayUnderTest

READ_SECONDS = 60.0


class Shown(NamedTuple):
    kind: str
    id: str
    data: Any


class FeedReader:
    """One open feed. `next` waits for the next event; `last_id` is where to go on."""

    def __init__(
        self, gateway: GatewayUnderTest, tenant: str, uid: str, key: str, *, last_id: str = "", query: str = ""
    ) -> None:
        self.last_id = last_id
        self._connection = HTTPConnection("127.0.0.1", gateway.port, timeout=READ_SECONDS)
        headers = {"authorization": f"Bearer {key}"} | ({"last-event-id": last_id} if last_id else {})
        path = f"/v1/tenants/{tenant}/users/{quote(uid, safe='')}/live{query}"
        self._connection.request("GET", path, headers=headers)
        self.response = self._connection.getresponse()
        self.status = self.response.status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.response.close()
        self._connection.close()

    def begun(self) -> Self:
        """Once the feed has said where it begins."""
        assert self.status == 200, self.response.read()
        while not self.last_id:
            self._block()
        return self

    def next(self) -> Shown:
        while (shown := self._block()) is None:
            pass
        return shown

    def rest(self) -> Iterator[Shown]:
        """What comes until the feed ends."""
        try:
            while True:
                yield self.next()
        except EOFError:
            return

    def ended(self) -> bool:
        """Reads to the end of the feed."""
        return all(True for _ in self.rest())

    def _block(self) -> Shown | None:
        """What stands up to the next empty line; None if it is no event."""
        fields = {"event": "message"}
        while line := self.response.readline():
            if not (text := line.decode().rstrip("\n")):
                break
            name, _, value = text.partition(": ")
            fields[name] = value
        else:
            raise EOFError
        self.last_id = fields.get("id", self.last_id)
        return Shown(fields["event"], self.last_id, json.loads(fields["data"])) if "data" in fields else None
