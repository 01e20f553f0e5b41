"""The HTTP load of the fault tests: requests that hold what they owe, answers that are judged, and a note of every one."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from threading import Thread
from typing import NamedTuple

import orjson
import pytest

from tests.builders import NOW_MS
from tests.chaos.clients import Clients
from tests.chaos.load import due, records
from tests.chaos.oracle import Evidence, Expected, Fate, judge
from tests.chaos.posts import JSON, NDJSON, SHAPES, Answer, Post, fault_of, posts, segment_call
from tests.chaos.scenarios.edge import OWED

pytestmark = pytest.mark.unit

SLOWLY = 0.01
"""Events a second: the first is due at once, a second one after the test."""
ACCEPTED = b'{"success":true,"accepted":1,"rejected":[],"rejected_count":0}'


def post(number: int = 1) -> Post:
    """A request of one event."""
    return Post("shop", "/v1/events", JSON, b"{}", (Expected(number, number, Fate.STORED, "shop", "u1", NOW_MS, b""),))


# ---------------------------------------------------------------------------------------------------------- requests


def test_every_event_is_in_the_request_that_owes_it_and_each_request_is_one_tenants() -> None:
    made = list(islice(posts(records(OWED, NOW_MS)), 200))
    assert all(numbers_in(each.body) == [expected.number for expected in each.expected] for each in made)
    assert all({expected.tenant for expected in each.expected} == {each.tenant} for each in made)
    numbers = [expected.number for each in made for expected in each.expected]
    assert len(numbers) == len(set(numbers))


def test_requests_have_every_shape() -> None:
    made = list(islice(posts(records(OWED, NOW_MS)), 200))
    assert {(each.path, each.content_type) for each in made} == {(each.path, each.content_type) for each in SHAPES}
    assert {each.body[:1] for each in made if each.path == "/v1/events" and each.content_type == JSON} == {b"{", b"["}
    assert max(each.body.count(b"\n") for each in made if each.content_type == NDJSON) > 1


def test_every_event_owes_a_row_of_its_own() -> None:
    owed = [record.expected for record in islice(records(OWED, NOW_MS), 2_000)]
    assert {expected.fate for expected in owed} == {Fate.STORED}
    assert all(expected.identity == expected.number for expected in owed)


def test_a_segment_call_is_the_same_event_in_other_words() -> None:
    for record in islice(records(OWED, NOW_MS), 50):
        envelope, call = orjson.loads(record.value or b""), segment_call(record)
        assert "tenant" not in call
        assert (call["userId"], call.get("messageId")) == (envelope["uid"], envelope.get("message_id"))
        same = ("event", "timestamp", "properties", "context")
        assert [call[name] for name in same] == [envelope[name] for name in same]


def numbers_in(body: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb'"properties":\{"n":(\d+)', body)]


# ----------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    "answer", [Answer(200, None, ACCEPTED), Answer(503, "1", b"{}"), Answer(503, "12", b"upstream is away")]
)
def test_an_answer_is_an_acceptance_or_says_when_to_come_back(answer: Answer) -> None:
    assert fault_of(post(), answer) is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(200, None, b'{"accepted":0}'), "200 for 0 of 1"),
        (Answer(200, None, b'{"accepted":2}'), "200 for 2 of 1"),
        (Answer(503, None, b"{}"), "Retry-After None"),
        (Answer(503, "soon", b"{}"), "Retry-After 'soon'"),
        (Answer(500, None, b"oops"), "500 b'oops'"),
        (Answer(504, "1", b""), "504"),
        (Answer(502, "1", b""), "502"),
        (Answer(400, None, b"why"), "400 b'why'"),
        (Answer(429, "1", b""), "429"),
    ],
)
def test_any_other_answer_is_a_fault(answer: Answer, said: str) -> None:
    assert said in str(fault_of(post(), answer))


# ----------------------------------------------------------------------------------------------------------- clients


class Turn(NamedTuple):
    """What a server does with one request; no status: it cuts the connection."""

    status: int | None
    body: bytes = b"{}"
    retry_after: str | None = None


@contextmanager
def server(turns: Sequence[Turn], bodies: list[bytes]) -> Iterator[int]:
    """A server that plays these turns, whichever client asks, and keeps what it was sent; gives its port."""
    waiting = iter(turns)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            turn = next(waiting)
            if turn.status is None:
                self.close_connection = True
                return
            self.send_response(turn.status)
            if turn.retry_after is not None:
                self.send_header("retry-after", turn.retry_after)
            self.send_header("content-length", str(len(turn.body)))
            self.end_headers()
            self.wfile.write(turn.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 — the base class's name
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield listening.server_address[1]
        finally:
            listening.shutdown()
            thread.join()


def test_a_request_is_sent_again_byte_for_byte_until_it_is_answered_with_200() -> None:
    bodies: list[bytes] = []
    with server([Turn(None), Turn(503, retry_after="0"), Turn(200, ACCEPTED)], bodies) as port:
        clients = Clients(port, {}, {})
        clients.start(iter([post(7)]), 1, SLOWLY)
        clients.finish(1)
    assert bodies == [b"{}"] * 3
    assert clients.heard == {"cut": 1, "503": 1, "200": 1}
    assert (clients.accepted, list(clients.acknowledged.values()), list(clients.plan)) == ({7}, [7], [7])
    assert clients.faults == []


def test_an_event_that_was_answered_with_200_and_has_no_row_is_lost() -> None:
    with server([Turn(200, ACCEPTED)], []) as port:
        clients = Clients(port, {}, {})
        clients.start(iter([post(7)]), 1, SLOWLY)
        clients.finish(1)
    verdict = judge(clients.plan, clients.acknowledged, {"shop": ("c3n",)}, Evidence(), {})
    assert (verdict.lost, verdict.holds) == (1, False)


def test_what_was_answered_wrongly_counts_as_planned_and_never_as_accepted() -> None:
    with server([Turn(500, b"oops")], []) as port:
        clients = Clients(port, {}, {})
        clients.start(iter([post(7)]), 1, SLOWLY)
        with pytest.raises(AssertionError, match="1 events were never answered with 200"):
            clients.finish(1)
    assert (clients.accepted, clients.acknowledged, list(clients.plan)) == (set(), {}, [7])
    assert clients.faults == ["500 b'oops'"]


def test_a_load_is_due_at_its_rate_and_then_trickles() -> None:
    assert [due(seconds, 100, 50.0) for seconds in (0.0, 1.0, 2.0)] == [0.0, 50.0, 100.0]
    assert due(4.0, 100, 50.0) == pytest.approx(105.0)
