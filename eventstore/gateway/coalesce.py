"""The same question asked by many at a time is asked of the store once (single flight)."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Flight(Generic[T]):
    task: "asyncio.Task[T]"
    waiting: int = 0


class Flights(Generic[T]):
    """Questions under way, by all that makes them differ."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def share(self, question: Hashable, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer to the question: that of the call under way, or of a new one. Raises what the call raises.

        Who leaves does not disturb the others; a call that nobody waits for any more is cancelled.
        """
        flight = self._flights.get(question)
        if flight is None:
            flight = self._flights[question] = _Flight(asyncio.create_task(ask()))
            flight.task.add_done_callback(partial(self._land, question, flight))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._land(question, flight)  # at once: nobody may join what is being cancelled
                flight.task.cancel()

    def _land(self, question: Hashable, flight: _Flight[T], _task: object = None) -> None:
        if self._flights.get(question) is flight:
            del self._flights[question]
