"""Alive, ready, and what a port says of it."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.config import WorkerSettings
from eventstore.errors import ConfigurationError
from eventstore.ingest.health import Check, Limits, Report, Stage, Vitals, liveness, readiness
from eventstore.stream.chunk import Chunk, Haul, Member
from tests.waiting import until
from workers.status import Probes, Pulse, StatusServer

pytestmark = pytest.mark.unit

NOW = 1_000.0
LIMITS = Limits(stall=60.0, haul=300.0, assignment=200.0)
SOUND = Vitals(
    stage=Stage.RUNNING, loop_at=NOW - 0.5, pump_at=NOW - 0.1, partitions=4, oldest_haul_at=NOW - 2.0,
    circuits={"c15": "closed", "c30": "closed"},
)  # fmt: skip


def failing(report: Report) -> set[str]:
    return {check.name for check in report.checks if not check.passes}


def live(**changes: Any) -> set[str]:
    return failing(liveness(replace(SOUND, **changes), NOW, LIMITS))


def ready(**changes: Any) -> set[str]:
    return failing(readiness(replace(SOUND, **changes), NOW, LIMITS))


def test_a_worker_at_work_is_alive_and_ready() -> None:
    assert live() == set()
    assert ready() == set()


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"loop_at": NOW - 60.1}, "loop"),
        ({"pump_at": NOW - 60.1}, "pump"),
        ({"silent_since": NOW - 60.1}, "fetch"),
        ({"oldest_haul_at": NOW - 300.1}, "writes"),
        ({"outside_since": NOW - 200.1}, "assignment"),
    ],
)
def test_whatever_stands_still_too_long_is_not_alive(changes: dict[str, float], check: str) -> None:
    assert live(**changes) == {check}
    assert live(**{name: at + 0.2 for name, at in changes.items()}) == set()


def test_an_open_circuit_is_no_reason_to_restart_and_none_to_wait() -> None:
    away = {"c15": "open", "c30": "half-open"}
    assert live(circuits=away) == ready(circuits=away) == set()


def test_more_workers_than_partitions_is_no_trouble() -> None:
    idle = {"partitions": 0, "oldest_haul_at": None}
    assert live(**idle) == ready(**idle) == set()


def test_a_starting_worker_is_alive_but_not_ready() -> None:
    early = {"stage": Stage.STARTING, "pump_at": None, "partitions": 0, "oldest_haul_at": None, "circuits": None}
    assert live(**early) == set()
    assert ready(**early) == {"stage", "assignment", "clusters"}


def test_a_worker_without_an_assignment_is_not_ready_at_once_and_not_alive_in_the_end() -> None:
    assert ready(outside_since=NOW) == {"assignment"}
    assert live(outside_since=NOW) == set()


def test_a_stopping_worker_is_alive_but_not_ready() -> None:
    assert live(stage=Stage.STOPPING) == set()
    assert ready(stage=Stage.STOPPING) == {"stage"}


moments = st.floats(0, NOW)
vitals = st.builds(
    Vitals, stage=st.sampled_from(Stage), loop_at=moments, pump_at=st.none() | moments, outside_since=st.none() | moments,
    silent_since=st.none() | moments, partitions=st.integers(0, 9), oldest_haul_at=st.none() | moments, circuits=st.just({"c": "open"}),
)  # fmt: skip


@given(vitals, st.floats(0, 1_000))
def test_time_alone_never_brings_a_worker_back_to_life(of: Vitals, later: float) -> None:
    assert failing(liveness(of, NOW, LIMITS)) <= failing(liveness(of, NOW + later, LIMITS))


@given(vitals)
def test_every_check_says_why(of: Vitals) -> None:
    for report in (liveness(of, NOW, LIMITS), readiness(of, NOW, LIMITS)):
        assert all(check.detail for check in report.checks)
        assert report.document["status"] == ("pass" if report.passes else "fail")


class Worker:
    """Answers as a test says."""

    def __init__(self) -> None:
        self.passes = True

    def report(self) -> Report:
        return Report((Check("loop", self.passes, "turned 0.1 s ago"),))


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def server(worker: Worker) -> Iterator[StatusServer]:
    with StatusServer(0, Probes(worker.report, worker.report)) as serving:
        yield serving


def get(server: StatusServer, path: str, method: str = "GET") -> tuple[int, bytes, str]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers["Content-Type"]
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_a_probe_answers_200_or_503_and_names_each_check(server: StatusServer, worker: Worker, path: str) -> None:
    status, body, content_type = get(server, path)
    assert (status, content_type) == (HTTPStatus.OK, "application/json")
    assert json.loads(body) == {
        "status": "pass",
        "checks": {"loop": {"pass": True, "detail": "turned 0.1 s ago"}},
    }
    worker.passes = False
    status, body, _ = get(server, path)
    assert (status, json.loads(body)["status"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "fail")
    assert get(server, path, "HEAD")[:2] == (HTTPStatus.SERVICE_UNAVAILABLE, b"")


def test_metrics_tell_of_the_checks_as_they_are_now(server: StatusServer, worker: Worker) -> None:
    assert b'eventstore_check{check="loop",probe="live"} 1.0' in get(server, "/metrics")[1]
    worker.passes = False
    status, body, content_type = get(server, "/metrics?format=text")
    assert status == HTTPStatus.OK
    assert content_type.startswith("text/plain")
    assert b'eventstore_check{check="loop",probe="live"} 0.0' in body


def test_another_path_is_told_which_there_are(server: StatusServer) -> None:
    assert get(server, "/") == (HTTPStatus.NOT_FOUND, b"/metrics /health/live /health/ready\n", "text/plain")


def test_a_taken_port_is_named_with_the_mend(server: StatusServer, worker: Worker) -> None:
    with pytest.raises(ConfigurationError, match=f"expected a free port, {server.port} is not.*METRICS_PORT"):
        StatusServer(server.port, Probes(worker.report, worker.report))


def test_a_loop_that_stands_still_is_told_of_and_one_that_goes_on_as_well() -> None:
    async def scenario() -> None:
        pulse = Pulse(WorkerSettings(stall_timeout=0.6))
        beating = asyncio.create_task(pulse.heart.beat())
        with StatusServer(0, pulse.probes) as server:
            # this very loop stands still while it waits for the answer
            until(lambda: get(server, "/health/live")[0] == HTTPStatus.SERVICE_UNAVAILABLE, "the stall to be noticed")
            while (await asyncio.to_thread(get, server, "/health/live"))[0] != HTTPStatus.OK:
                pass
        beating.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_haul_that_is_worked_on_for_too_long_is_a_stuck_write() -> None:
    pulse = Pulse(WorkerSettings(chunk_timeout=1e-9))
    haul = Haul([Chunk("events", 0, [], 0, Member())])
    assert pulse.probes.live().passes
    pulse.begin(haul)
    assert failing(pulse.probes.live()) == {"writes"}
    pulse.end(haul)
    assert pulse.probes.live().passes
