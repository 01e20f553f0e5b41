"""What the store, the dead letters, the divert topics and the committed offsets hold, read without the ingest code."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC
from typing import Any

import orjson
from confluent_kafka import Consumer, Message, TopicPartition

from eventstore.store.session import close, connect
from eventstore.tenancy import Cluster
from tests.chaos.load import digest_of, digest_of_raw
from tests.chaos.oracle import Evidence, Letter, Place, Row
from tests.waiting import until

SCAN = (
    "SELECT tenant, uid, ts, event, properties, context, writetime(properties) AS written "
    "FROM events WHERE token(uid, tenant, bid) > ? AND token(uid, tenant, bid) <= ?"
)
RANGES = 16
LOWEST, HIGHEST = -(2**63), 2**63 - 1
PAGE_ROWS = 2_000
SCAN_SECONDS = 60.0
ANSWER_SECONDS = 30.0


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


def _row(cluster: str, row: Any) -> Row:
    try:
        number = orjson.loads(row.properties).get("n")
    except orjson.JSONDecodeError:
        number = None
    ts_ms = round(row.ts.replace(tzinfo=UTC).timestamp() * 1_000)  # the driver's datetimes are UTC and do not say so
    digest = digest_of(row.event, row.properties.encode(), row.context.encode())
    return Row(cluster, row.tenant, row.uid, ts_ms, row.written, number, digest)


class Topics:
    """Reads topics and offsets with one client that is in no group."""

    def __init__(self, bootstrap_servers: str, group: str) -> None:
        self._client = Consumer({
            "bootstrap.servers": bootstrap_servers, "group.id": group, "enable.auto.commit": False, "log_level": 2,
        })  # fmt: skip

    def close(self) -> None:
        self._client.close()

    def offsets(self, topic: str) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
        """(what the group has committed, the end of the log), by topic and partition."""
        places = self._partitions(topic)
        ends = {(topic, p.partition): self._client.get_watermark_offsets(p, timeout=ANSWER_SECONDS)[1] for p in places}
        committed = self._client.committed(places, timeout=ANSWER_SECONDS)
        for place in committed:
            assert place.error is None, place.error
        return {(topic, place.partition): max(0, place.offset) for place in committed}, ends

    def lag(self, topics: Iterable[str]) -> int:
        return sum(sum(ends.values()) - sum(committed.values()) for committed, ends in map(self.offsets, topics))

    def records(self, topic: str, start: Mapping[tuple[str, int], int] | None = None) -> list[Message]:
        """Everything a topic holds, or what comes from these offsets on."""
        ends = self.offsets(topic)[1]
        wanted = {place: end - (start or {}).get(place, 0) for place, end in ends.items()}
        total, found = sum(wanted.values()), list[Message]()
        self._client.assign([TopicPartition(*place, (start or {}).get(place, 0)) for place in ends])

        def complete() -> bool:
            for message in self._client.consume(2_000, 0.2):
                assert message.error() is None, message.error()
                if message.offset() < ends[message.topic(), message.partition()]:
                    found.append(message)
            return len(found) >= total

        try:
            until(complete, f"{total} records of {topic}")
        finally:
            self._client.unassign()
        return found

    def _partitions(self, topic: str) -> list[TopicPartition]:
        found = self._client.list_topics(topic, timeout=ANSWER_SECONDS).topics[topic]
        assert found.error is None, found.error
        return [TopicPartition(topic, number) for number in found.partitions]


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
    found.committed, found.ends = topics.offsets(events)
    found.letters = [each for message in topics.records(dead_letters) if (each := letter(message))]
    for topic in divert:
        committed, ends = topics.offsets(topic)
        found.diverted.update(
            n for message in topics.records(topic, committed) if (n := number_of(message)) is not None
        )
        found.committed |= committed
        found.ends |= ends
    for cluster in clusters:
        found.rows.extend(rows_of(cluster))
    return found
