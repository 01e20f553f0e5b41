"""The CQL driver's requests as something to await: its answers come on a thread of its own."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cassandra.cluster import ResponseFuture


async def rows(response: ResponseFuture) -> list[Any]:
    """All rows of a request under way, fetched page by page. How many that may be is the statement's LIMIT to say.

    A server may cut a page short of the rows that are left (ScyllaDB at 1 MiB, and wherever a filter scanned much), and
    even empty: only its paging state says that there is more. Every page has the request's time-out anew.

    Raises:
        Exception: the driver's own; map them with `eventstore.store.failures.mapped`.
    """
    found = await _page(response)
    while response.has_more_pages:
        response.clear_callbacks()
        response.start_fetching_next_page()
        found += await _page(response)
    return found


async def _page(response: ResponseFuture) -> list[Any]:
    loop = asyncio.get_running_loop()
    page: asyncio.Future[list[Any]] = loop.create_future()
    response.add_callbacks(
        callback=_wake,
        callback_args=(loop, page, page.set_result),
        errback=_wake,
        errback_args=(loop, page, page.set_exception),
    )
    return await page


def _wake(
    outcome: Any, loop: asyncio.AbstractEventLoop, page: asyncio.Future[Any], settle: Callable[[Any], None]
) -> None:
    with suppress(RuntimeError):  # the loop has ended: nobody waits any more
        loop.call_soon_threadsafe(_settle, outcome, page, settle)


def _settle(outcome: Any, page: asyncio.Future[Any], settle: Callable[[Any], None]) -> None:
    if not page.done():  # its reader may have left
        settle(outcome)
