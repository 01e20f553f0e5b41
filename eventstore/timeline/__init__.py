"""One user's past: a query plan over buckets, a paging cursor, and reading ahead in order."""

from eventstore.timeline.plan import TimelineQuery
from eventstore.timeline.posts import PostsPage, PostsQuery, SeenPosts
from eventstore.timeline.stores import TimelineStore, TimelineStores
from eventstore.timeline.timeline import DEFAULT_PAGE, MAX_PAGE, Page, Timeline

__all__ = [
    "DEFAULT_PAGE",
    "MAX_PAGE",
    "Page",
    "PostsPage",
    "PostsQuery",
    "SeenPosts",
    "Timeline",
    "TimelineQuery",
    "TimelineStore",
    "TimelineStores",
]
