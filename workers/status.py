"""What a process tells about itself over HTTP: `/metrics`, `/health/live`, `/health/ready`.

Served by threads of its own, so that a main loop that stands still is still answered for, with the truth.
"""

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import monotonic
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from eventstore import metrics
from eventstore.config import WorkerSettings
from eventstore.errors import ConfigurationError
from eventstore.ingest.circuit import State
from eventstore.ingest.health import Limits, Report, Stage, Vitals, liveness, readiness
from eventstore.stream.chunk import Haul
from eventstore.stream.consumer import ChunkConsumer
from workers.process import Heartbeat

STOP_SECONDS: Final = 0.2
"""How soon a stop is noticed."""
CLIENT_SECONDS: Final = 5.0
"""A client that says nothing for so long is let go."""


class Probes(NamedTuple):
    """The process's own answers, asked on any thread."""

    live: Callable[[], Report]
    ready: Callable[[], Report]


class Pulse:
    """What a worker's main loop says of itself. Written on the loop; read on any thread, so each reading is one step."""

    def __init__(self, worker: WorkerSettings) -> None:
        self.stage = Stage.STARTING
        self.member: Callable[[], ChunkConsumer | None] = lambda: None
        self.circuits: Callable[[], Mapping[str, State]] | None = None
        """None until the registry is in force."""
        self._limits = Limits(worker.stall_timeout, worker.chunk_timeout, worker.assignment_timeout)
        self.heart = Heartbeat()
        self._begun: dict[Haul, float] = {}

    def begin(self, haul: Haul) -> None:
        self._begun[haul] = monotonic()

    def end(self, haul: Haul) -> None:
        del self._begun[haul]

    @property
    def probes(self) -> Probes:
        return Probes(
            live=lambda: liveness(self._vitals(), monotonic(), self._limits),
            ready=lambda: readiness(self._vitals(), monotonic(), self._limits),
        )

    def _vitals(self) -> Vitals:
        member, circuits = self.member(), self.circuits
        return Vitals(
            stage=self.stage,
            loop_at=self.heart.at,
            pump_at=member.turned_at if member else None,
            outside_since=member.outside_since if member else None,
            silent_since=member.silent_since if member else None,
            partitions=len(member.assignment) if member else 0,
            oldest_haul_at=min(tuple(self._begun.values()), default=None),
            circuits={name: state.name.lower() for name, state in circuits().items()} if circuits else None,
        )


class Answer(NamedTuple):
    status: HTTPStatus
    content_type: str
    body: bytes


class StatusServer:
    """Listens on all interfaces from the start of the block to its end."""

    def __init__(self, port: int, probes: Probes, setting: str = "worker.metrics_port") -> None:
        """Raises ConfigurationError, which names the setting, if the port is taken."""
        self._probes = probes
        try:
            self._server = ThreadingHTTPServer(("", port), self._handler())
        except OSError as error:
            raise ConfigurationError(
                f"{setting}: expected a free port, {port} is not: {error.strerror}; "
                f"set EVENTSTORE_{setting.upper().replace('.', '__')} to another, or 0 for none"
            ) from error
        self._thread = Thread(target=self._server.serve_forever, args=(STOP_SECONDS,), name="status", daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_port

    def answer(self, path: str, accept: str = "") -> Answer:
        """What a GET of this path is told."""
        match path:
            case "/metrics":
                self._health("live")
                self._health("ready")
                encode, content_type = choose_encoder(accept)
                return Answer(HTTPStatus.OK, content_type, encode(REGISTRY))
            case "/health/live" | "/health/ready":
                report = self._health(path.rpartition("/")[2])
                status = HTTPStatus.OK if report.passes else HTTPStatus.SERVICE_UNAVAILABLE
                return Answer(status, "application/json", json.dumps(report.document, indent=2).encode() + b"\n")
            case _:
                return Answer(HTTPStatus.NOT_FOUND, "text/plain", b"/metrics /health/live /health/ready\n")

    def _health(self, probe: str) -> Report:
        report = self._probes.live() if probe == "live" else self._probes.ready()
        for check in report.checks:
            metrics.CHECK.labels(probe, check.name).set(check.passes)
        return report

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            timeout = CLIENT_SECONDS

            def do_GET(self) -> None:
                found = answer(urlsplit(self.path).path, self.headers.get("Accept", ""))
                self.send_response(found.status)
                self.send_header("Content-Type", found.content_type)
                self.send_header("Content-Length", str(len(found.body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(found.body)

            do_HEAD = do_GET  # noqa: N815 — http.server's spelling

            def log_message(self, *_: object) -> None:
                """Probes come every few seconds; they are not worth a line each."""

        return Handler

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
