"""Which posts a user has seen, over a store in memory."""

import asyncio
from dataclasses import replace

import pytest

from eventstore.errors import CursorError, QueryError
from eventstore.events.stored import Partition, SeenPost
from eventstore.tenancy import Tenant
from eventstore.tenancy.buckets import history
from eventstore.timeline import PostsPage, PostsQuery, SeenPosts, TimelineQuery
from eventstore.timeline.cursor import Cursor, encode
from eventstore.timeline.posts import MAX_CANDIDATES
from tests.builders import DAY_MS, NOW_MS, registry, stored, tier
from tests.timeline_memory import MemoryStore

pytestmark = pytest.mark.unit

T30 = replace(
    tier(buckets=history([(0, 10 * DAY_MS), (NOW_MS - 4 * DAY_MS, DAY_MS)])), impressions_retention_seconds=20 * 86_400
)
KNOWN = registry(Tenant("shop", T30))


def shown(**ages: int) -> MemoryStore:
    """A store of posts seen so many milliseconds ago; a number in a post's name tells its sightings apart: p1_2."""
    store = MemoryStore()
    for name, age in ages.items():
        post, at = name.partition("_")[0], NOW_MS - age
        held = store.impressions[Partition("u1", "shop", T30.buckets.bid(at))]
        held[post] = SeenPost(post, at, at).joined(held.get(post, SeenPost(post, at, at)))
    return store


def over(store: MemoryStore) -> SeenPosts:
    return SeenPosts(lambda name: KNOWN.tenants[name].tier, store, lambda: NOW_MS, DAY_MS)


def seen(store: MemoryStore, *posts: str) -> dict[str, tuple[int, int]]:
    found = asyncio.run(over(store).seen("shop", "u1", posts))
    return {post: (NOW_MS - each.first_ms, NOW_MS - each.last_ms) for post, each in found.items()}


def pages(store: MemoryStore, limit: int, start_ms: int | None = None) -> list[list[str]]:
    found: list[list[str]] = []
    cursor = None
    while not found or cursor is not None:
        query = PostsQuery("shop", "u1", start_ms)
        page: PostsPage = asyncio.run(over(store).page(query, limit=limit, cursor=cursor))
        found.append([each.post for each in page.posts])
        cursor = page.next_cursor
    return found


def test_sightings_in_several_buckets_are_joined() -> None:
    store = shown(p1=5, p1_2=3 * DAY_MS, p1_3=15 * DAY_MS, p2=0, p3=-DAY_MS + 1)
    assert seen(store, "p1", "p2", "p3", "p4", "p1") == {
        "p1": (15 * DAY_MS, 5), "p2": (0, 0), "p3": (-DAY_MS + 1, -DAY_MS + 1),
    }  # fmt: skip


def test_what_is_past_the_retention_of_impressions_is_not_told_though_it_is_still_there() -> None:
    store = shown(old=20 * DAY_MS + 1, kept=20 * DAY_MS)
    assert seen(store, "old", "kept") == {"kept": (20 * DAY_MS, 20 * DAY_MS)}
    assert pages(store, 10) == [["kept"]]


@pytest.mark.parametrize("held", [0, 3, 149, 150, 151, 400])
def test_many_candidates_are_found_however_much_the_bucket_holds(held: int) -> None:
    store = shown(**{f"p{number:03}": number for number in range(held)})
    asked = [f"p{number:03}" for number in range(0, 450, 3)]
    assert sorted(seen(store, *asked)) == [post for post in asked if int(post[1:]) < held]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
def test_pages_give_every_post_of_the_range_once_the_newest_bucket_first(limit: int) -> None:
    store = shown(b=0, a=1, d=2 * DAY_MS, c=2 * DAY_MS, e=12 * DAY_MS, x=19 * DAY_MS, f=12 * DAY_MS)
    order = [post for page in pages(store, limit, NOW_MS - 13 * DAY_MS) for post in page]
    assert order == ["a", "b", "c", "d", "e", "f"]


def test_posts_before_the_range_cost_no_question_each() -> None:
    class Counting(MemoryStore):
        questions = 0

        async def posts(self, partition: Partition, after: str, limit: int) -> list[SeenPost]:
            self.questions += 1
            return await super().posts(partition, after, limit)

    store = Counting()
    store.impressions = shown(a=0, **{f"old{number:03}": 1 for number in range(300)}).impressions
    page = asyncio.run(over(store).page(PostsQuery("shop", "u1", NOW_MS), limit=2))
    assert [each.post for each in page.posts] == ["a"]
    assert store.questions <= 301 // 2 + 2  # whole pages; one of one post each would be 300


def test_a_cursor_keeps_to_the_range_and_the_user_that_it_was_given_for() -> None:
    store = shown(a=0, b=DAY_MS)
    first = asyncio.run(over(store).page(PostsQuery("shop", "u1", NOW_MS - 2 * DAY_MS), limit=1))
    assert first.next_cursor is not None
    later = PostsQuery("shop", "u1", NOW_MS)  # as "the last two days" would be much later
    second = asyncio.run(over(store).page(later, limit=5, cursor=first.next_cursor))
    assert [each.post for each in second.posts] == ["b"]
    of_events = encode(Cursor(None, stored().position), TimelineQuery("shop", "u1"))
    for other, cursor in ((PostsQuery("shop", "u2"), first.next_cursor), (later, of_events), (later, "x")):
        with pytest.raises(CursorError):
            asyncio.run(over(store).page(other, limit=5, cursor=cursor))


@pytest.mark.parametrize(
    "posts", [(), ("",), ("p", "x" * 257), ("\udcff",), tuple(map(str, range(MAX_CANDIDATES + 1)))]
)
def test_candidates_that_cannot_be_asked_for_are_refused(posts: tuple[str, ...]) -> None:
    with pytest.raises(QueryError, match="posts: expected"):
        seen(MemoryStore(), *posts)


def test_a_page_has_bounds_and_a_user_a_name() -> None:
    for limit in (0, 1_001):
        with pytest.raises(QueryError, match="limit"):
            asyncio.run(over(MemoryStore()).page(PostsQuery("shop", "u1"), limit=limit))
    with pytest.raises(QueryError, match="uid"):
        PostsQuery("shop", "")
