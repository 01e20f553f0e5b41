"""Which posts a user has seen, and when first and last."""

import asyncio
import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import chain, dropwhile
from typing import Final

import msgspec

from eventstore.errors import QueryError
from eventstore.events.impressions import MAX_POST_BYTES
from eventstore.events.stored import Partition, SeenPost
from eventstore.events.validate import MAX_UID_BYTES
from eventstore.tenancy import Bucket, Tier
from eventstore.timeline.cursor import no_cursor, seal, unseal
from eventstore.timeline.plan import check_page, check_text
from eventstore.timeline.stores import TimelineStore, TimelineStores

MAX_CANDIDATES: Final = 500
"""Posts asked for in one call."""
BUCKETS_AT_ONCE: Final = 16
"""Read by one call."""
FEW: Final = 100
"""Posts that are best asked for by name, whatever else the bucket holds: that is one request."""
DEFAULT_POSTS: Final = 100
"""Of a page."""
MAX_POSTS: Final = 1_000
VERSION: Final = 2
"""Cursors of events have 1."""
_BODY: Final = struct.Struct(">Bqi")


class PostsPage(msgspec.Struct, frozen=True):
    """Some of the posts seen, the newest bucket's first, in each by id; and how to go on."""

    posts: list[SeenPost]
    next_cursor: str | None
    """None: nothing is left. A full page has one even if nothing follows."""


@dataclass(frozen=True, slots=True)
class PostsQuery:
    """A question about the posts that one user has seen since `start_ms`; None: for as long as it is known.

    Raises:
        QueryError: a name that no record can have.
    """

    tenant: str
    uid: str
    start_ms: int | None = None

    def __post_init__(self) -> None:
        check_text("tenant", self.tenant, MAX_UID_BYTES)
        check_text("uid", self.uid, MAX_UID_BYTES)


class SeenPosts:
    """The posts that any user of any tenant has seen. A `Timeline` has one: `posts`.

    All methods raise `UnknownTenantError`, and the store's `TransientStoreError` and `PermanentStoreError`.
    """

    def __init__(
        self, tier: Callable[[str], Tier], stores: TimelineStores, clock: Callable[[], int], max_future_ms: int
    ) -> None:
        self._tier = tier
        self._stores = stores
        self._clock = clock
        self._max_future_ms = max_future_ms

    async def seen(self, tenant: str, uid: str, candidates: Collection[str]) -> dict[str, SeenPost]:
        """Those of the candidates that the user has seen, by id.

        Raises:
            QueryError: none or too many candidates, or an id that no post can have.
        """
        asked = list(dict.fromkeys(candidates))
        _check_candidates(asked)
        tier = self._tier(tenant)
        since, buckets = self._reach(PostsQuery(tenant, uid), tier)
        store = await self._stores.of(tier.cluster)
        places = asyncio.Semaphore(BUCKETS_AT_ONCE)

        async def read(bucket: Bucket) -> list[SeenPost]:
            async with places:
                return await _seen_in(store, Partition(uid, tenant, bucket.bid), asked)

        answers = await asyncio.gather(*map(read, buckets))
        found: dict[str, SeenPost] = {}
        for seen in chain.from_iterable(answers):
            if seen.last_ms >= since:
                found[seen.post] = seen.joined(found.get(seen.post, seen))
        return found

    async def page(self, query: PostsQuery, *, limit: int = DEFAULT_POSTS, cursor: str | None = None) -> PostsPage:
        """Posts seen within the range, or those after `cursor`: bucket by bucket, the newest first, in each by id.

        A post seen in two buckets comes twice, each time with its times in that bucket.

        Raises:
            QueryError: a limit out of bounds.
            CursorError: a cursor of another question.
        """
        check_page(limit, MAX_POSTS, "posts")
        query, bid, after = _resume(query, cursor)
        tier = self._tier(query.tenant)
        since, buckets = self._reach(query, tier)
        store = await self._stores.of(tier.cluster)
        found: list[SeenPost] = []
        for bucket in dropwhile(lambda each: bid not in (None, each.bid), buckets):
            more = True
            while more:
                # whole pages, however few are still wanted: old posts among them must not cost a request each
                posts = await store.posts(Partition(query.uid, query.tenant, bucket.bid), after, limit)
                found += [seen for seen in posts if seen.last_ms >= since]
                if len(found) >= limit:
                    return PostsPage(found[:limit], _cursor(query, bucket.bid, found[limit - 1].post))
                more = len(posts) == limit
                after = posts[-1].post if more else ""
        return PostsPage(found, None)

    def _reach(self, query: PostsQuery, tier: Tier) -> tuple[int, list[Bucket]]:
        """The first time in question, and the buckets that can hold it or later ones, the newest first."""
        now = self._clock()
        since = max(query.start_ms or 0, now - tier.impressions_retention_seconds * 1_000, 0)
        return since, tier.buckets.between(since, now + self._max_future_ms)[::-1]


async def _seen_in(store: TimelineStore, partition: Partition, asked: Sequence[str]) -> list[SeenPost]:
    """Those of the candidates that one bucket holds.

    Mostly it holds fewer posts than are asked for. Then reading all of them is one request, where their names would take several.
    """
    if len(asked) <= FEW:
        return await store.seen(partition, asked)
    held = await store.posts(partition, "", len(asked))
    names = set(asked)
    found = [seen for seen in held if seen.post in names]
    if len(held) == len(asked):
        beyond = held[-1].post.encode()
        found += await store.seen(partition, [post for post in asked if post.encode() > beyond])
    return found


def _check_candidates(posts: Sequence[str]) -> None:
    if not 0 < len(posts) <= MAX_CANDIDATES:
        raise QueryError(f"posts: expected 1 to {MAX_CANDIDATES}, got {len(posts)}; ask in several calls")
    for post in posts:
        check_text("posts", post, MAX_POST_BYTES)


def _cursor(query: PostsQuery, bid: int, post: str) -> str:
    start = -1 if query.start_ms is None else query.start_ms
    return seal(_BODY.pack(VERSION, start, bid) + post.encode(), (query.tenant, query.uid))


def _resume(query: PostsQuery, cursor: str | None) -> tuple[PostsQuery, int | None, str]:
    """The question as the first page asked it; the bucket and the post that were handed out last."""
    if cursor is None:
        return query, None, ""
    body = unseal(cursor, VERSION, (query.tenant, query.uid))
    try:
        _, start, bid = _BODY.unpack_from(body)
        post = body[_BODY.size :].decode()
    except (struct.error, UnicodeDecodeError):  # forged
        raise no_cursor(cursor) from None
    return replace(query, start_ms=None if start < 0 else start), bid, post
