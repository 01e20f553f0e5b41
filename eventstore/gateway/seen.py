"""What a user has seen, over HTTP: which of some posts, or all of them page by page."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import msgspec

from eventstore.errors import QueryError
from eventstore.events.validate import EPOCH
from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.bulkhead import Bulkhead
from eventstore.gateway.coalesce import Flights
from eventstore.gateway.http import HttpError, Request, Response, encode
from eventstore.gateway.openapi import answers, parameter
from eventstore.gateway.questions import Range, fields_of, number
from eventstore.gateway.read import USER
from eventstore.gateway.routes import Guard, Route
from eventstore.timeline import Timeline
from eventstore.timeline.posts import DEFAULT_POSTS, MAX_CANDIDATES, MAX_POSTS, PostsQuery


class Times(msgspec.Struct, frozen=True):
    """When a post was seen."""

    first: datetime
    last: datetime


class SeenAnswer(msgspec.Struct, frozen=True):
    """Those of the posts that the user has seen, by id; the others are left out."""

    seen: dict[str, Times]


class Shown(msgspec.Struct, frozen=True):
    """A post that the user has seen."""

    id: str
    first: datetime
    last: datetime


class ImpressionsPage(msgspec.Struct, frozen=True):
    """Some posts that the user has seen."""

    impressions: list[Shown]
    cursor: str | None
    """Give it back for the next page; null: nothing is left."""


@dataclass(frozen=True, slots=True)
class SeenReader:
    """The handlers of questions about seen posts."""

    doorkeeper: Doorkeeper
    timeline: Timeline
    reads: Bulkhead
    _answers: Flights[Response] = field(default_factory=Flights)

    def routes(self) -> list[Route]:
        return [
            Route("GET", f"{USER}/seen", self.seen, Guard.READ, "Which of these posts one user has seen", operation=_SEEN),
            Route("GET", f"{USER}/impressions", self.impressions, Guard.READ, "The posts that one user has seen",
                  operation=_IMPRESSIONS),
        ]  # fmt: skip

    async def seen(self, request: Request) -> Response:
        """Of up to 500 candidates."""
        tenant = self.doorkeeper.charged(request)
        uid, posts = request.params["uid"], fields_of(request, ("posts",)).get("posts", "")
        candidates = tuple(dict.fromkeys(posts.split(",")))

        async def ask() -> Response:
            found = await self.timeline.posts.seen(tenant.name, uid, candidates)
            times = {post: Times(_moment(seen.first_ms), _moment(seen.last_ms)) for post, seen in found.items()}
            return Response(200, encode(SeenAnswer(times)))

        return await self.reads.ask(tenant, lambda: self._answers.share((tenant.name, uid, candidates), ask))

    async def impressions(self, request: Request) -> Response:
        """A page of all that were seen within a range."""
        tenant = self.doorkeeper.charged(request)
        fields = fields_of(request, ("last", "limit", "cursor"))
        uid, within = request.params["uid"], Range.of(fields)
        limit, cursor = number(fields, "limit", DEFAULT_POSTS, MAX_POSTS), fields.get("cursor")
        try:
            query = PostsQuery(tenant.name, uid, within.begins_ms(request.received_micros // 1_000))
        except QueryError as error:
            raise HttpError(400, str(error)) from error

        async def ask() -> Response:
            page = await self.timeline.posts.page(query, limit=limit, cursor=cursor)
            shown = [Shown(seen.post, _moment(seen.first_ms), _moment(seen.last_ms)) for seen in page.posts]
            return Response(200, encode(ImpressionsPage(shown, page.next_cursor)))

        question = (tenant.name, uid, within, limit, cursor)
        return await self.reads.ask(tenant, lambda: self._answers.share(question, ask))


def _moment(millis: int) -> datetime:
    return EPOCH + timedelta(milliseconds=millis)


_SEEN: Final = {
    "description": "Those that the user has not seen, within the retention of impressions, are left out of the answer.",
    "parameters": [
        parameter("posts", str, f"Up to {MAX_CANDIDATES} ids with commas between them.", required=True, minLength=1),
    ],
    "responses": answers(SeenAnswer),
}
_IMPRESSIONS: Final = {
    "description": "The newest bucket's first, in each by id; a post seen in two buckets comes twice, with its times in each.",
    "parameters": [
        parameter("last", str, "How far back they were last seen: `7d`, `12h`. Default: as long as it is known.", pattern="^[0-9]{1,9}[dhms]$"),
        parameter("limit", int, "Posts of a page.", minimum=1, maximum=MAX_POSTS, default=DEFAULT_POSTS),
        parameter("cursor", str, "Go on where the page ended that gave this cursor: same user."),
    ],
    "responses": answers(ImpressionsPage),
}  # fmt: skip
