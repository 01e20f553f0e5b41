"""HTTP clients, beside the producer: they post events to a gateway, and send again whatever it does not answer with 200."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Final

from eventstore.tenancy import KeyUse
from tests.chaos.load import STEP_SECONDS, due
from tests.chaos.oracle import Expected, Place
from tests.chaos.posts import Answer, Post, fault_of
from tests.gateways import key

AT_ONCE: Final = 8
"""Clients, each with one request open at a time."""
ANSWER_SECONDS: Final = 60.0
"""Longer than a gateway may take to answer anything."""
AGAIN_SECONDS: Final = 0.1
"""Before what was cut off is sent again."""
LONGEST_PAUSE_SECONDS: Final = 2.0
FINISH_SECONDS: Final = 120.0


@dataclass(slots=True)
class Clients:
    """Post at a rate, and note what was posted and what was answered with 200, where the producer notes the same."""

    port: int
    plan: dict[int, Expected]
    acknowledged: dict[Place, int]
    accepted: set[int] = field(default_factory=set)
    """Numbers of the events that were answered with 200."""
    heard: Counter[str] = field(default_factory=Counter)
    """How often each status was answered, a connection `cut`, or `refused`."""
    faults: list[str] = field(default_factory=list)
    """Answers that must not be."""
    open: int = 0
    """Requests being worked on."""
    posted: int = 0
    """Events."""
    _stop: threading.Event = field(default_factory=threading.Event)
    """No more new requests."""
    _ended: threading.Event = field(default_factory=threading.Event)
    """No more attempts either."""
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _noting: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, load: Iterator[Post], count: int, rate: float) -> None:
        """So many events at this rate a second, and then a trickle until `finish`."""
        begun = time.monotonic()

        def wanted() -> float:
            return due(time.monotonic() - begun, count, rate)

        self._threads = [
            threading.Thread(target=self._run, args=(load, wanted), name=f"client-{number}", daemon=True)
            for number in range(AT_ONCE)
        ]
        for thread in self._threads:
            thread.start()

    def finish(self, at_least: int) -> None:
        """Stop once so many events were posted, and wait until every request has been answered with 200."""
        while self.posted < at_least and any(thread.is_alive() for thread in self._threads):
            time.sleep(STEP_SECONDS)
        self._stop.set()
        end = time.monotonic() + FINISH_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        left = self.posted - len(self.accepted)
        assert not left, f"{left} events were never answered with 200: {dict(self.heard)}, {self.faults[:3]}"

    def end(self) -> None:
        """However it stands."""
        self._stop.set()
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, load: Iterator[Post], wanted: Callable[[], float]) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        while (post := self._next(load, wanted)) is not None:
            while (pause := self._attempt(connection, post)) is not None and not self._ended.wait(pause):
                pass
        connection.close()

    def _next(self, load: Iterator[Post], wanted: Callable[[], float]) -> Post | None:
        """The next request when it is due; None when there are to be no more."""
        with self._turn:
            while self.posted >= wanted():
                if self._stop.wait(STEP_SECONDS):
                    return None
            if self._stop.is_set():
                return None
            post = next(load)
            self.posted += len(post.expected)
            self.plan.update((expected.number, expected) for expected in post.expected)
            return post

    def _attempt(self, connection: HTTPConnection, post: Post) -> float | None:
        """Seconds until it should be sent again; None: it is done with."""
        with self._noting:
            self.open += 1
        try:
            answer = _ask(connection, post)
        except TimeoutError:
            return self._cut_off(connection, "unanswered", f"no answer within {ANSWER_SECONDS:.0f} s")
        except ConnectionRefusedError:
            return self._cut_off(connection, "refused")
        except (OSError, HTTPException):
            return self._cut_off(connection, "cut")
        finally:
            with self._noting:
                self.open -= 1
        return self._answered(post, answer)

    def _answered(self, post: Post, answer: Answer) -> float | None:
        fault = fault_of(post, answer)
        self._note(str(answer.status), fault)
        if answer.status == 503:
            return LONGEST_PAUSE_SECONDS if fault else min(float(answer.retry_after or 0), LONGEST_PAUSE_SECONDS)
        if fault is None:
            numbers = [expected.number for expected in post.expected]
            with self._noting:
                self.accepted.update(numbers)
            self.acknowledged.update((Place("answered with 200", 0, number), number) for number in numbers)
        return None

    def _cut_off(self, connection: HTTPConnection, what: str, fault: str | None = None) -> float:
        connection.close()  # the next attempt opens it anew
        self._note(what, fault)
        return AGAIN_SECONDS

    def _note(self, what: str, fault: str | None) -> None:
        with self._noting:
            self.heard[what] += 1
            if fault is not None:
                self.faults.append(fault)


def _ask(connection: HTTPConnection, post: Post) -> Answer:
    headers = {"authorization": f"Bearer {key(post.tenant, KeyUse.WRITE)}", "content-type": post.content_type}
    connection.request("POST", post.path, post.body, headers)
    response = connection.getresponse()
    return Answer(response.status, response.headers["retry-after"], response.read())
