"""A user's newest events over HTTP: one of each name, from one read."""

from dataclasses import dataclass, field
from typing import Final

import msgspec

from eventstore.events.stored import StoredEvent
from eventstore.gateway.access import Doorkeeper
from eventstore.gateway.bulkhead import Bulkhead
from eventstore.gateway.coalesce import Flights
from eventstore.gateway.http import HttpError, Request, Response, encode
from eventstore.gateway.openapi import answers, parameter
from eventstore.gateway.questions import fields_of
from eventstore.gateway.read import USER
from eventstore.gateway.routes import Guard, Route
from eventstore.timeline import Timeline


class LatestEvents(msgspec.Struct, frozen=True):
    """The newest event of each name; names that the user has no event of are left out."""

    latest: dict[str, StoredEvent]


@dataclass(frozen=True, slots=True)
class LatestReader:
    """The handler of questions about a user's newest events."""

    doorkeeper: Doorkeeper
    timeline: Timeline
    reads: Bulkhead
    _answers: Flights[Response] = field(default_factory=Flights)

    def routes(self) -> list[Route]:
        return [Route("GET", f"{USER}/latest", self.latest, Guard.READ, "One user's newest event of each name",
                      operation=_LATEST)]  # fmt: skip

    async def latest(self, request: Request) -> Response:
        """Of the names that are asked for, or of all that the tenant lists."""
        tenant = self.doorkeeper.charged(request)
        uid, names = request.params["uid"], _names(fields_of(request, ("events",)))

        async def ask() -> Response:
            return Response(200, encode(LatestEvents(await self.timeline.at_hand(tenant.name, uid, names))))

        return await self.reads.ask(tenant, lambda: self._answers.share((tenant.name, uid, names), ask))


def _names(fields: dict[str, str]) -> tuple[str, ...]:
    if "events" not in fields:
        return ()
    names = tuple(fields["events"].split(","))
    if not all(names):
        raise HttpError(400, f"events: expected names with commas between them, got {fields['events'][:80]!r}")
    return names


_LATEST: Final = {
    "description": "Only names that the tenant lists in the registry (`latest`) are kept at hand.",
    "parameters": [
        parameter(
            "events", str, "Names of events with commas between them. Default: all that the tenant lists.", minLength=1
        )
    ],
    "responses": answers(LatestEvents),
}
