import asyncio
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from cassandra import ReadTimeout

from eventstore.store.request import rows

pytestmark = pytest.mark.unit

Page = list[int] | Exception


class Response:
    """A ResponseFuture's side of the bargain: each page is answered on another thread, the way the driver does."""

    def __init__(self, *pages: Page) -> None:
        self.pages = list(pages)
        self.late: list[Callable[[], None]] = []
        self.hold = False

    @property
    def has_more_pages(self) -> bool:
        return bool(self.pages)

    def clear_callbacks(self) -> None: ...

    def start_fetching_next_page(self) -> None: ...

    def add_callbacks(
        self,
        callback: Callable[..., None],
        errback: Callable[..., None],
        callback_args: tuple[Any, ...],
        errback_args: tuple[Any, ...],
    ) -> None:
        page = self.pages.pop(0)

        def answer() -> None:
            if isinstance(page, Exception):
                errback(page, *errback_args)
            else:
                callback(page, *callback_args)

        if self.hold:
            self.late.append(answer)
        else:
            Thread(target=answer).start()


def test_pages_cut_short_or_empty_are_followed_to_the_end() -> None:
    assert asyncio.run(rows(Response([1, 2], [], [3], []))) == [1, 2, 3]


def test_an_error_on_a_later_page_is_raised() -> None:
    with pytest.raises(ReadTimeout):
        asyncio.run(rows(Response([1], ReadTimeout("late"))))


def test_an_answer_for_a_reader_that_has_left_is_dropped() -> None:
    async def leave() -> None:
        response = Response([1])
        response.hold = True
        reading = asyncio.create_task(rows(response))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        response.late[0]()
        await asyncio.sleep(0)

    failures: list[dict[str, Any]] = []
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda _, context: failures.append(context))
        runner.run(leave())
    assert failures == []


def test_an_answer_after_the_loop_has_ended_is_dropped() -> None:
    response = Response([1])
    response.hold = True

    async def leave() -> None:
        reading = asyncio.create_task(rows(response))
        await asyncio.sleep(0)
        reading.cancel()

    asyncio.run(leave())
    response.late[0]()  # in the driver's thread this would be a stack trace
