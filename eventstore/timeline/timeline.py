"""One user's past, newest first, whatever bucket or cluster it lies in."""

from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import replace
from difflib import get_close_matches
from typing import Final

import msgspec

from eventstore.config import ReaderSettings
from eventstore.errors import QueryError, UnknownTenantError
from eventstore.events.stored import Position, Slice, StoredEvent
from eventstore.tenancy import Registry, Tenant, Tier
from eventstore.timeline.ahead import chunks, in_order
from eventstore.timeline.cursor import Cursor, decode, encode
from eventstore.timeline.plan import TimelineQuery, check_page, plan
from eventstore.timeline.posts import SeenPosts
from eventstore.timeline.stores import TimelineStores

DEFAULT_PAGE: Final = 50
MAX_PAGE: Final = 1_000
"""Most events of one page: at 32 KiB each it is still 32 MiB. `Timeline.iterate` has no such limit."""


class Page(msgspec.Struct, frozen=True):
    """Some events, newest first, and how to go on."""

    events: list[StoredEvent]
    next_cursor: str | None
    """None: nothing older is left. A full page has one even if nothing follows: finding that out may cost more than
    the page did."""


class Timeline:
    """The past of any user of any tenant.

    `registry` gives the registry in force, `stores` a cluster's store, `clock` milliseconds since the epoch.
    A disabled tenant can still be read: disabling stops what comes in, and what is stored stays until it expires.

    All methods raise `UnknownTenantError`, and the store's `TransientStoreError` and `PermanentStoreError`.
    """

    def __init__(
        self,
        registry: Callable[[], Registry],
        stores: TimelineStores,
        clock: Callable[[], int],
        limits: ReaderSettings,
        max_future_ms: int,
    ) -> None:
        self._registry = registry
        self._stores = stores
        self._clock = clock
        self._limits = limits
        self._max_future_ms = max_future_ms
        self.posts = SeenPosts(self._tier, stores, clock, max_future_ms)
        """What the user has seen."""

    async def page(self, query: TimelineQuery, *, limit: int = DEFAULT_PAGE, cursor: str | None = None) -> Page:
        """The newest `limit` events of the question, or those after `cursor`.

        With a cursor the range starts where the first page's did, so that "the last 30 days" do not move between pages.

        Raises:
            QueryError: a limit out of bounds.
            CursorError: a cursor of another question.
        """
        check_page(limit, MAX_PAGE, "events")
        query, before = _resume(query, cursor)
        events: list[StoredEvent] = []
        async with aclosing(self._chunks(query, before, min(limit, self._limits.page_rows))) as found:
            async for rows in found:
                events += rows[: limit - len(events)]
                if len(events) == limit:
                    return Page(events, encode(Cursor(query.start_ms, events[-1].position), query))
        return Page(events, None)

    async def iterate(self, query: TimelineQuery, *, cursor: str | None = None) -> AsyncGenerator[StoredEvent, None]:
        """Every event of the question, or those after `cursor`; holds a few fetched lists at a time, however many come.

        Raises:
            CursorError: a cursor of another question.
        """
        query, before = _resume(query, cursor)
        async with aclosing(self._chunks(query, before, self._limits.page_rows)) as found:
            async for rows in found:
                for event in rows:
                    yield event

    async def latest(self, query: TimelineQuery) -> StoredEvent | None:
        """The newest event of the question: with `event`, the last product viewed, say."""
        newest = await self.page(query, limit=1)
        return newest.events[0] if newest.events else None

    async def at_hand(self, tenant: str, uid: str, names: Collection[str] = ()) -> dict[str, StoredEvent]:
        """The user's newest event of each of these names, by name: one read, however long ago they were.

        `names` are of those that the tenant lists in the registry; without any: all of them. A name that was listed only
        lately is not there before it comes again, or is replayed.

        Raises:
            QueryError: a name that the tenant does not list.
        """
        TimelineQuery(tenant, uid)  # raises QueryError for names that no event can have
        of = self._tenant(tenant)
        if unlisted := [name for name in names if name not in of.latest]:
            raise QueryError(
                f"events: expected names out of tenants.{tenant}.latest ({', '.join(of.latest) or 'none'}), got {unlisted[0][:80]!r}"
            )
        if not of.latest:
            raise QueryError(
                f"events: expected a list of names in tenants.{tenant}.latest, found none: add one to the registry"
            )
        store = await self._stores.of(of.tier.cluster)
        found = await store.latest(tenant, uid, list(dict.fromkeys(names)) or of.latest)
        return {event.event: event for event in found}

    async def count(self, query: TimelineQuery) -> int:
        """How many events the question has; the servers count, no row is fetched."""
        tier = self._tier(query.tenant)
        if not (slices := self._plan(query, tier, None)):
            return 0
        store = await self._stores.of(tier.cluster)

        async def count(part: Slice) -> int:
            return await store.count(part, query.event)

        async with aclosing(in_order(slices, count, self._limits.concurrency)) as counted:
            return sum([rows async for _, rows in counted])

    async def _chunks(
        self, query: TimelineQuery, before: Position | None, size: int
    ) -> AsyncGenerator[list[StoredEvent], None]:
        tier = self._tier(query.tenant)
        if not (slices := self._plan(query, tier, before)):
            return
        store = await self._stores.of(tier.cluster)

        async def read(part: Slice) -> list[StoredEvent]:
            return await store.read(part, query.event, size)

        async with aclosing(chunks(slices, read, size, self._limits.concurrency)) as found:
            async for rows in found:
                yield rows

    def _plan(self, query: TimelineQuery, tier: Tier, before: Position | None) -> list[Slice]:
        return plan(query, tier, self._clock(), self._max_future_ms, before)

    def _tier(self, tenant: str) -> Tier:
        return self._tenant(tenant).tier

    def _tenant(self, tenant: str) -> Tenant:
        tenants = self._registry().tenants
        if found := tenants.get(tenant):
            return found
        near = get_close_matches(tenant, tenants, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see `eventstore tenants list`"
        raise UnknownTenantError(f"tenant: expected one of the registry's {len(tenants)}, got {tenant!r}; {hint}")


def _resume(query: TimelineQuery, cursor: str | None) -> tuple[TimelineQuery, Position | None]:
    """The question as the first page asked it, and the last row handed out."""
    if cursor is None:
        return query, None
    after = decode(cursor, query)
    return replace(query, start_ms=after.start_ms), after.last
