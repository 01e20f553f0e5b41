"""What the store, the dead letters, the divert topics and the committed offsets hold, read without the ingest code."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from eventstore.store.session import close, connect
from eventstore.tenancy import Cluster, Registry
from tests.chaos.load import digest_of, digest_of_raw
from tests.chaos.oracle import Evidence, Letter, Offsets, Place, Row
from tests.waiting import until

SCAN = (
    "SELECT tenant, uid, ts, event, properties, context, writetime(properties) AS written, ttl(properties) AS left "
    "FROM events WHERE token(uid, tenant, bid) > ? AND token(uid, tenant, bid) <= ?"
)
RANGES = 16
LOWEST, HIGHEST = -(2**63), 2**63 - 1
PAGE_ROWS = 2_000
SCAN_SECONDS = 60.0
ANSWER_SECONDS = 30.0
PAUSE_SECONDS = 0.25


def rows_of(cluster: Cluster) -> Iterator[Row]:
    """Every row of a cluster's table, token range by token range, at LOCAL_QUORUM."""
    session = connect(cluster, request_timeout=SCAN_SECONDS)
    session.default_fetch_size = PAGE_ROWS
    try:
        scan = session.prepare(SCAN)
        bounds = [LOWEST + number * 2**64 // RANGES for number in range(RANGES)]
        for start, end in zip(bounds, [*bounds[1:], HIGHEST], strict=True):
            for row in session.execute(scan, (start, end)):
                yield _row(cluster.name, row)
    finally:
        close(session)


def retentions_of(registry: Registry) -> dict[str, int]:
    """How long each cluster keeps rows, in seconds."""
    return {tier.cluster.name: tier.retention_seconds for tier in registry.tiers.values()}


def _row(cluster: str, row: Any) -> Row:
    try:
        number = orjson.loads(row.properties).get("n")
    except orjson.JSONDecodeError:
        number = None
    ts_ms = round(row.ts.replace(tzinfo=UTC).timestamp() * 1_000)  # the driver's datetimes are UTC and do not say so
    digest = digest_of(row.event, row.properties.encode(), row.context.encode())
    expires = None if row.left is None else time.time() + row.left
    return Row(cluster, row.tenant, row.uid, ts_ms, row.written, number, digest, expires)


class Topics:
    """Reads topics and committed offsets without being a member of any group; for one thread."""

    def __init__(self, bootstrap_servers: str, group_of: Callable[[str], str], patience: float = 60.0) -> None:
        """`group_of` tells which group reads a topic; `patience`: seconds to ask again while brokers are not ready."""
        self._patience = patience
        self._servers = {"bootstrap.servers": bootstrap_servers, "log_level": 2}
        self._group_of = group_of
        self._admin = AdminClient(self._servers)
        self._clients: dict[str, Consumer] = {}
        """By group; none is ever a member."""

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _client(self, group: str) -> Consumer:
        if group not in self._clients:
            self._clients[group] = Consumer(self._servers | {"group.id": group, "enable.auto.commit": False})
        return self._clients[group]

    def ends(self, topics: Collection[str]) -> Offsets:
        """Where the log of each partition ends."""
        return self._patiently(lambda: self._ends(topics))

    def _ends(self, topics: Collection[str]) -> Offsets:
        known = self._admin.list_topics(timeout=ANSWER_SECONDS).topics
        places = [TopicPartition(topic, number) for topic in topics for number in known[topic].partitions]
        answers = self._admin.list_offsets(dict.fromkeys(places, OffsetSpec.latest()), request_timeout=ANSWER_SECONDS)
        return {(place.topic, place.partition): answer.result().offset for place, answer in answers.items()}

    def committed(self, topic: str) -> Offsets:
        """Only partitions of which anything was committed."""
        return self._patiently(lambda: self._committed(topic))

    def _committed(self, topic: str) -> Offsets:
        known = self._admin.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic].partitions
        places = [TopicPartition(topic, number) for number in known]
        # a consumer is asked: librdkafka's admin client dies of the answer that a coordinator has moved
        found = self._client(self._group_of(topic)).committed(places, timeout=ANSWER_SECONDS)
        if fault := next((place.error for place in found if place.error is not None), None):
            raise KafkaException(fault)
        return {(topic, place.partition): place.offset for place in found if place.offset >= 0}

    def _patiently(self, ask: Callable[[], Offsets]) -> Offsets:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return ask()
            except (KafkaException, KeyError):  # a broker that has just come back does not know its topics at once
                if time.monotonic() >= deadline:
                    raise
            time.sleep(PAUSE_SECONDS)

    def lag(self, topics: Collection[str]) -> int:
        ends, committed = self.ends(topics), Counter[tuple[str, int]]()
        for topic in topics:
            if any(end for place, end in ends.items() if place[0] == topic):
                committed.update(self.committed(topic))
        return sum(ends.values()) - sum(committed.values())

    def records(self, topic: str, start: Offsets | None = None) -> list[Message]:
        """Everything a topic holds, or what comes from these offsets on."""
        ends, begin = self.ends([topic]), start or {}
        wanted = {place: end for place, end in ends.items() if end > begin.get(place, 0)}
        total, found = sum(end - begin.get(place, 0) for place, end in wanted.items()), list[Message]()
        client = self._client("oracle")
        client.assign([TopicPartition(*place, begin.get(place, 0)) for place in wanted])

        def complete() -> bool:
            for message in client.consume(2_000, 0.2):
                assert message.error() is None, message.error()
                if message.offset() < ends[message.topic(), message.partition()]:
                    found.append(message)
            return len(found) >= total

        try:
            until(complete, f"{total} records of {topic}")
        finally:
            client.unassign()
        return found


def letter(message: Message) -> Letter | None:
    """A record of the dead-letter topic; None for the note that a replay leaves there."""
    headers = dict(message.headers() or ())
    if "es-replayed" in headers:
        return None
    digest, reason = digest_of_raw(message.key(), message.value()), (headers.get("es-reason") or b"").decode()
    return Letter(_source(headers), reason, digest)


def _source(headers: Mapping[str, bytes | None]) -> Place | None:
    """Where the record first stood: of one that was diverted or replayed before, that is its origin."""
    if origin := headers.get("es-origin"):
        topic, partition, offset = origin.decode().split("/")
        return Place(topic, int(partition), int(offset))
    found = [headers.get(name) for name in ("es-topic", "es-partition", "es-offset")]
    if None in found:
        return None
    topic, partition, offset = (value.decode() for value in found if value is not None)
    return Place(topic, int(partition), int(offset))


def number_of(message: Message) -> int | None:
    """The producer's number of a good record."""
    try:
        found = orjson.loads(message.value() or b"")["properties"]["n"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return int(found)


def gather(
    topics: Topics, events: str, dead_letters: str, divert: Iterable[str], clusters: Iterable[Cluster]
) -> Evidence:
    """Everything that is there now.

    In the order in which a record moves, its offset first: what is safe when its offset is read is found afterwards, wherever
    it has gone meanwhile.
    """
    found = Evidence()
    found.committed, found.ends = dict(topics.committed(events)), dict(topics.ends([events]))
    found.letters = [each for message in topics.records(dead_letters) if (each := letter(message))]
    for topic in divert:
        committed = topics.committed(topic)
        waiting = map(number_of, topics.records(topic, committed))
        found.diverted.update(number for number in waiting if number is not None)
        found.committed |= committed
        found.ends |= topics.ends([topic])
    for cluster in clusters:
        found.rows.extend(rows_of(cluster))
    return found
