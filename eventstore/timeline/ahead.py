"""Reading ahead: the next few slices are asked for while the newest is being read, and handed on in order."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, Final, TypeVar

from eventstore.events.stored import Slice, StoredEvent

T = TypeVar("T")

FIRST_SLICES: Final = 2
"""Slices asked for at first. The newest bucket may lie in the accepted future or have begun a minute ago, so that the one
before it is mostly needed."""


async def in_order(
    slices: Iterable[Slice], call: Callable[[Slice], Coroutine[Any, Any, T]], most: int
) -> AsyncGenerator[tuple[Slice, T], None]:
    """`call`'s result for each slice, in the order of `slices`, with at most `most` calls open.

    Starts with a few and opens more with every result taken: ten events of a chatty user cost three slices at most, a
    full read soon has all its calls under way. Leaving early cancels what is open.
    """
    rest = iter(slices)
    open_calls: deque[tuple[Slice, asyncio.Task[T]]] = deque()
    taken = 0
    try:
        while True:
            window = min(FIRST_SLICES * max(taken, 1), most)
            open_calls.extend((s, asyncio.create_task(call(s))) for s in islice(rest, window - len(open_calls)))
            if not open_calls:
                return
            part, result = open_calls[0]
            yield part, await result
            open_calls.popleft()
            taken += 1
    finally:
        for _, result in open_calls:
            result.cancel()
        await asyncio.gather(*(result for _, result in open_calls), return_exceptions=True)


async def chunks(
    slices: Iterable[Slice], read: Callable[[Slice], Coroutine[Any, Any, list[StoredEvent]]], size: int, most: int
) -> AsyncGenerator[list[StoredEvent], None]:
    """All rows of the slices, in order, as lists of at most `size`, the limit that `read` keeps.

    A slice that fills its list is read on from its last row; at most `most` lists are held at any time.
    """
    async for part, rows in in_order(slices, read, most):
        yield rows
        while len(rows) == size:
            rows = await read(part.older_than(rows[-1].position))  # noqa: PLW2901 — the slice's next rows
            yield rows
