"""How long after it was published an event of one tier can be read, watched from outside through a whole scenario."""

import threading
import time
from dataclasses import dataclass, field
from itertools import count
from statistics import quantiles
from typing import Any, Final, NamedTuple

import orjson
from cassandra import DriverException
from cassandra.cluster import NoHostAvailable, Session
from cassandra.connection import ConnectionException

from eventstore.store.session import close, connect
from eventstore.tenancy import Tier
from tests.chaos.load import Publisher, Record, digest_of
from tests.chaos.oracle import Expected, Fate

MARKER_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 0.02
FIRST_NUMBER: Final = 1_000_000_000
"""Above the numbers of any load."""
USERS: Final = 4
"""Each has its own Kafka partition, or shares it by chance."""
READ: Final = "SELECT properties FROM events WHERE uid = ? AND tenant = ? AND bid = ? AND ts >= ?"
READ_SECONDS: Final = 5.0
NOT_NOW: Final = (DriverException, NoHostAvailable, ConnectionException)
"""What the driver raises while nodes are away."""


class Seen(NamedTuple):
    published: float
    """Seconds since the epoch."""
    seconds: float
    """Until it could be read."""


@dataclass(slots=True)
class Waiting:
    """Markers of one user that cannot be read yet, by number: when they were published."""

    uid: str
    published: dict[int, float] = field(default_factory=dict)


class Freshness:
    """Publishes a marker every MARKER_SECONDS and looks for those that are out, until `stop`."""

    def __init__(self, publisher: Publisher, tenant: str, tier: Tier) -> None:
        self.publisher = publisher
        self.seen: list[Seen] = []
        self._tenant, self._tier = tenant, tier
        self._numbers = count(FIRST_NUMBER)
        self._users = [Waiting(f"marker-{number}") for number in range(USERS)]
        self._publishing, self._looking = threading.Event(), threading.Event()
        self._publishing.set()
        self._looking.set()
        self._thread = threading.Thread(target=self._watch, name="freshness", daemon=True)
        self._failure: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def quiet(self) -> None:
        """Publish no more markers, and go on looking for those that are out."""
        self._publishing.clear()

    def stop(self) -> None:
        self._publishing.clear()
        self._looking.clear()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def is_done(self) -> bool:
        """Whether every marker has been read. Raises what ended the watch."""
        if self._failure is not None:
            raise self._failure
        return not any(user.published for user in self._users)

    def quantile_ms(self, share: float, since: float = 0.0, to: float = float("inf")) -> float:
        """Of the markers published in that span, in milliseconds; NaN if there are none."""
        found = [each.seconds for each in self.seen if since <= each.published < to]
        if len(found) < 2:
            return float("nan")
        return 1_000 * quantiles(found, n=100, method="inclusive")[round(share * 100) - 1]

    def worst_seconds(self, since: float = 0.0, to: float = float("inf")) -> float:
        return max((each.seconds for each in self.seen if since <= each.published < to), default=0.0)

    def _watch(self) -> None:
        session = connect(self._tier.cluster, request_timeout=READ_SECONDS)
        try:
            self._look_around(session)
        except Exception as error:  # noqa: BLE001 — told by `stop`, in the thread that cares
            self._failure = error
        finally:
            close(session)

    def _look_around(self, session: Session) -> None:
        read, due, turns = session.prepare(READ), time.monotonic(), count()
        while self._looking.is_set():
            if self._publishing.is_set() and time.monotonic() >= due:
                due += MARKER_SECONDS
                self._publish(self._users[next(turns) % USERS])
            for user in self._users:
                if user.published:
                    self._look(session, read, user)
            self.publisher.poll()
            time.sleep(LOOK_SECONDS)

    def _publish(self, user: Waiting) -> None:
        number, now = next(self._numbers), time.time()
        ts_ms = int(now * 1_000)
        properties = orjson.dumps({"n": number})
        body = orjson.dumps({
            "tenant": self._tenant, "uid": user.uid, "event": "marker", "timestamp": ts_ms,
            "message_id": f"marker-{number}", "properties": orjson.Fragment(properties),
        })  # fmt: skip
        digest = digest_of("marker", properties, b"{}")
        expected = Expected(number, number, Fate.STORED, self._tenant, user.uid, ts_ms, digest)
        user.published[number] = now
        self.publisher.send(Record(f"{self._tenant}:{user.uid}".encode(), body, expected))

    def _look(self, session: Session, read: Any, user: Waiting) -> None:
        oldest_ms = int(min(user.published.values()) * 1_000)
        for bid in {self._tier.buckets.bid(ts_ms) for ts_ms in (oldest_ms, int(time.time() * 1_000))}:
            try:
                rows = session.execute(read, (user.uid, self._tenant, bid, oldest_ms))
            except NOT_NOW:  # a reader tries again; its markers are so much older then
                return
            for number in {orjson.loads(row[0])["n"] for row in rows} & user.published.keys():
                published = user.published.pop(number)
                self.seen.append(Seen(published, time.time() - published))
