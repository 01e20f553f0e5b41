"""Impressions in: the posts that a user has seen become one record. An answer of 200 says that Kafka has it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from eventstore.events import Reason, Rejected
from eventstore.events.decode import MAX_EVENT_BYTES
from eventstore.events.envelope import record_key
from eventstore.events.foreign import at_micros
from eventstore.events.impressions import MAX_POST_BYTES, MAX_POSTS, Impressions, Post, posts_seen
from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.collect import Publisher, confirming, read_json
from eventstore.gateway.http import HttpError, Request, Response, encode
from eventstore.gateway.openapi import answers, body
from eventstore.gateway.posting import TIME
from eventstore.gateway.routes import Guard, Route
from eventstore.stream.publisher import Outgoing
from eventstore.tenancy import Tenant


class ImpressionsReceipt(msgspec.Struct, frozen=True):
    """What became of the posts of a request: all of them are accepted, or none."""

    accepted: int


class PostedImpressions(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, kw_only=True):
    """The record as it is posted: the key says whose it is, and the time may be left out.

    What a record must have is checked after the key, which may be inside.
    """

    tenant: str | None = None
    uid: str = ""
    at: int | datetime | None = None
    """Now, if there is none."""
    posts: list[str | Post] = []
    writeKey: str | None = None  # noqa: N815 — as the other routes spell it
    """For what a page sends as it closes: that can carry no header."""


_posted = msgspec.json.Decoder(PostedImpressions).decode


@dataclass(frozen=True, slots=True)
class ImpressionCollector:
    """The handler of impressions."""

    doorkeeper: Doorkeeper
    publisher: Publisher
    max_future_micros: int

    def routes(self) -> list[Route]:
        return [Route("POST", "/v1/impressions", self.impressions, Guard.WRITE, "Posts that a user has seen",
                      key_in_body=True, operation=_IMPRESSIONS)]  # fmt: skip

    async def impressions(self, request: Request) -> Response:
        """One record, whatever the number of posts."""
        posted = read_json(_posted, await request.body(MAX_EVENT_BYTES))
        tenant = request.tenant or self.doorkeeper.tenant_of(posted.writeKey, Guard.WRITE)
        self.doorkeeper.charge(tenant, 1)
        record = self._record(posted, tenant, request.received_micros)
        with confirming():
            await self.publisher.publish([Outgoing(record_key(record), _encoded(record))])
        return Response(200, encode(ImpressionsReceipt(len(record.posts))))

    def _record(self, posted: PostedImpressions, tenant: Tenant, now_micros: int) -> Impressions:
        """What workers will find sound.

        Raises:
            HttpError: 400, 413.
        """
        if posted.tenant not in (None, tenant.name):
            raise HttpError(400, f"tenant: expected {tenant.name!r}, whose key this is, got {posted.tenant!r}")
        at = at_micros(now_micros) if posted.at is None else posted.at
        record = Impressions(tenant=tenant.name, uid=posted.uid, at=at, posts=posted.posts)
        found = posts_seen(record, now_micros, self.max_future_micros)
        if isinstance(found, Rejected):
            raise HttpError(400, f"{found.reason.value}: {found.detail}")
        return record


def _encoded(record: Impressions) -> bytes:
    value = encode(record)
    if len(value) > MAX_EVENT_BYTES:
        raise HttpError(
            413, f"{Reason.TOO_LARGE.value}: expected at most {MAX_EVENT_BYTES} bytes as a record, got {len(value)}"
        )
    return value


_POST_ID: Final = {"type": "string", "minLength": 1, "maxLength": MAX_POST_BYTES}
_IMPRESSIONS: Final[Mapping[str, Any]] = {
    "requestBody": body(
        application_json={
            "type": "object",
            "required": ["uid", "posts"],
            "additionalProperties": False,
            "properties": {
                "tenant": {"type": "string", "description": "The key's own, if it is given."},
                "uid": {"type": "string", "minLength": 1, "maxLength": 256},
                "at": {**TIME, "description": "When posts without a time of their own were seen; default: now."},
                "posts": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_POSTS,
                    "items": {
                        "anyOf": [
                            _POST_ID,
                            {
                                "type": "object",
                                "required": ["id", "at"],
                                "additionalProperties": False,
                                "properties": {"id": _POST_ID, "at": TIME},
                            },
                        ]
                    },
                },
                "writeKey": {"type": "string", "description": "In place of the Authorization header."},
            },
        }
    ),
    "responses": answers(ImpressionsReceipt),
}
