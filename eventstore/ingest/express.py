"""The way most records take: one pass from Kafka's bytes to the cells of their rows.

`Admission` is the rule book: it explains itself, and costs twice as much. Nearly every record plainly keeps every rule, and
the express way knows those by cheaper signs: a sender whose key has been looked at before, a body of whole UTF-8 with few
brackets. It takes them straight to their cells; a record that lacks a sign goes by the book. Where it is built, the
accelerator takes most of them first, in C. Property tests hold that all ways come to the same verdict on any record.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any, Final

import msgspec

from eventstore.accelerator import ACCELERATOR, Accelerator
from eventstore.events import Coordinates, Rejected
from eventstore.events.cells import BUCKET, FRESH, INT, LATE, LATE_END, MOMENT, WRITE_TIME, Batch, encode, text
from eventstore.events.decode import MAX_EVENT_BYTES, decode_event
from eventstore.events.envelope import NO_CONTEXT
from eventstore.events.erasure import Erasures
from eventstore.events.identity import EID_BYTES, UUID_TEXT_LENGTH
from eventstore.events.impressions import encode_impression
from eventstore.events.validate import MAX_DEPTH, check_object, check_uid, micros_of
from eventstore.ingest.admission import MICROS, Admission, Admitted, AdmittedPosts, ClockRules, Erased, check_schema
from eventstore.ingest.latest import names_by_tenant, newest
from eventstore.stream.chunk import Record, Records
from eventstore.stream.headers import origin
from eventstore.tenancy import Registry, Tenant, Tier

MAX_SENDERS: Final = 50_000
"""Keys remembered, about 20 MB. Beyond that all are forgotten, and each is looked at once more."""
MAX_NAMES: Final = 10_000
BRACE, BRACKET = b"{["


@dataclass(slots=True)
class Bucket:
    """A bucket of a tier, and the rows of the present run that fall into it."""

    cell: bytes
    start_ms: int
    end_ms: int
    groups: dict[bytes, Batch] = field(default_factory=dict)
    """By Kafka key: each is one partition of the table."""


NOWHERE: Final = Bucket(b"", 0, 0)


@dataclass(slots=True)
class Destination:
    """A tier and its buckets; the last one used is at hand, because times that arrive together are close together."""

    tier: Tier
    buckets: dict[int, Bucket] = field(default_factory=dict)
    """By bid, of the present run."""
    bucket: Bucket = field(default_factory=lambda: NOWHERE)

    def turn_to(self, ts_ms: int) -> Bucket:
        """Have the bucket of this event time at hand."""
        for bucket in self.buckets.values():  # a handful: records of one run rarely reach over more
            if bucket.start_ms <= ts_ms < bucket.end_ms:
                break
        else:
            (found,) = self.tier.buckets.between(ts_ms, ts_ms + 1)
            bucket = self.buckets[found.bid] = Bucket(BUCKET(4, found.bid, 8), found.start_ms, found.end_ms)
        self.bucket = bucket
        return bucket

    def forget(self) -> None:
        """Start over, with no bucket at hand."""
        self.buckets = {}
        self.bucket = NOWHERE


class Sender(msgspec.Struct, gc=False):
    """What a sound Kafka key, `tenant:uid`, tells; a record of the key must still say the same of itself."""

    tenant: str
    uid: str
    cells: bytes
    """Of uid and tenant."""
    of: Tenant
    floor: int
    """Events at or before this moment were erased; microseconds since the epoch."""
    has_rules: bool
    """Whether its tenant asks more of an event than everybody does: schemas, or listed names only."""
    destination: Destination


@dataclass(slots=True)
class Sorted:
    """Records by verdict."""

    admission: Admission
    """What decided over them."""
    batches: dict[str, list[Batch]] = field(default_factory=dict)
    """By cluster; all rows of a batch are of one partition. Not yet cut to size."""
    rejects: list[tuple[Rejected, Record]] = field(default_factory=list)
    expired: Counter[str] = field(default_factory=Counter)
    """How many, by tier."""
    erased: int = 0
    """How many were of an erased past."""
    tenants: Counter[str] = field(default_factory=Counter)
    """How many records, by tenant."""

    def add_posts(self, posts: AdmittedPosts) -> None:
        batches: dict[int, Batch] = {}
        for impression in posts.impressions:
            batches.setdefault(impression.bid, []).extend(encode_impression(impression))
        self.batches.setdefault(posts.tier.cluster.name, []).extend(batches.values())
        self.tenants[posts.tenant] += 1


class Express:
    """Sorts records. Remembers senders and event names between them, as long as the registry stays the same."""

    def __init__(
        self, rules: ClockRules, erasures: Erasures | None = None, accelerator: Accelerator | None = ACCELERATOR
    ) -> None:
        self._rules = rules
        self._accelerator = accelerator
        self._erasures = Erasures() if erasures is None else erasures
        self._erasures.subscribe(self._forget)
        self._late_micros = ceil(rules.late_after_seconds) * MICROS
        self._future_micros = int(rules.max_future_seconds * MICROS)
        self._registry: Registry | None = None
        self._senders: dict[bytes | None, Sender] = {}
        self._names: dict[str, bytes] = {}
        self._destinations: dict[str, Destination] = {}
        self._latest: Mapping[str, tuple[bytes, ...]] = {}
        """The cells of names of events, by tenant, whose newest are kept at hand."""

    def sort(self, records: Records, registry: Registry, now_micros: int) -> Sorted:
        """Every one of the records, decoded, validated, transformed, routed and grouped by partition."""
        self._follow(registry)
        admission = Admission(registry, now_micros, self._rules, self._erasures)
        found = Sorted(admission)
        senders, names = self._senders, self._names
        late_from, latest = now_micros - self._late_micros, now_micros + self._future_micros
        # the hot loop: every line of it is paid for each record
        for record, key, value in self._left(records, registry, now_micros):
            sender = senders.get(key) or self._introduced(key, registry)
            if sender is None:
                self._by_the_book(record, admission, found)
                continue
            try:
                event = decode_event(value)
                name = names[event.event]
                message_id: str = event.message_id  # type: ignore[assignment]  # None fails the next line: by the book
                eid = bytes.fromhex(message_id.replace("-", ""))
                stamp = event.timestamp
                micros = stamp * 1_000 if type(stamp) is int else micros_of(stamp)  # type: ignore[arg-type]
                properties = bytes(event.properties)
                context = b"{}" if event.context is NO_CONTEXT else bytes(event.context)
                proven = (
                    # as `uuid_bytes`: 16 bytes and 4 hyphens where they belong leave room for nothing else
                    len(eid) == EID_BYTES
                    and len(message_id) == UUID_TEXT_LENGTH
                    and message_id[8:24:5] == "----"
                    and event.uid == sender.uid
                    and event.tenant == sender.tenant
                    and sender.floor < micros <= latest  # the floor of a user who was never erased lies below 0
                    and properties[0] == BRACE
                    and len(value) <= MAX_EVENT_BYTES
                    and (
                        (properties.rfind(BRACE) == 0 and BRACKET not in properties)
                        or properties.count(BRACE) + properties.count(BRACKET) <= MAX_DEPTH
                    )
                    and (properties.isascii() or properties.decode())
                    and (event.context is NO_CONTEXT or check_object("context", context) is None)
                    and (not sender.has_rules or check_schema(event.event, properties, sender.of) is None)
                )
            except Exception:  # noqa: BLE001 — the book says what is wrong with the record, or raises it again
                proven = False
            if not proven:
                self._by_the_book(record, admission, found)
                continue
            destination = sender.destination
            if micros > late_from:
                count, end = FRESH, WRITE_TIME(8, micros)
            else:
                ttl = destination.tier.retention_seconds - (now_micros - micros) // MICROS
                if ttl <= 0:
                    found.expired[destination.tier.name] += 1
                    continue
                count, end = LATE, LATE_END(8, micros, 4, ttl)
            ts_ms = micros // 1_000
            bucket = destination.bucket
            if not bucket.start_ms <= ts_ms < bucket.end_ms:
                bucket = destination.turn_to(ts_ms)
            cells = b"".join((
                count, sender.cells, bucket.cell, MOMENT(ts_ms, 16, eid, len(name)), name,
                INT(len(properties)), properties, INT(len(context)), context, end,
            ))  # fmt: skip
            if (rows := bucket.groups.get(key)) is None:
                bucket.groups[key] = [cells]
            else:
                rows.append(cells)
        self._collect(found)
        return found

    def _left(self, records: Records, registry: Registry, now_micros: int) -> Iterable[tuple[Record, Any, Any]]:
        """The records that the accelerator, if there is one, has not taken; each with its key and its value."""
        if self._accelerator is None:
            return records.records()
        messages, keys, values = records.messages, records.keys(), records.values()
        for key in set(keys).difference(self._senders):
            self._introduced(key, registry)
        clock = (now_micros, now_micros - self._late_micros, now_micros + self._future_micros)
        limits = (MAX_EVENT_BYTES, MAX_DEPTH)
        left = self._accelerator.take_plain(keys, values, self._senders, self._names, check_schema, clock, limits)
        return ((messages[n], keys[n], values[n]) for n in left)

    def _forget(self, key: bytes) -> None:
        """The sender is introduced anew: its floor may have changed."""
        self._senders.pop(key, None)

    def _by_the_book(self, record: Record, admission: Admission, found: Sorted) -> None:
        key = record.key()
        verdict = admission.verdict(record.value(), key, partial(first_place, record))
        if isinstance(verdict, Rejected):
            found.rejects.append((verdict, record))
        elif isinstance(verdict, Admitted):
            row = verdict.row
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            self._names[row.event] = row.event.encode()
            bucket = self._destination(verdict.tier).turn_to(row.ts_ms)
            bucket.groups.setdefault(key, []).append(encode(row))
        elif isinstance(verdict, AdmittedPosts):
            found.add_posts(verdict)
        elif isinstance(verdict, Erased):
            found.erased += 1
        else:
            found.expired[verdict.tier.name] += 1

    def _introduced(self, key: bytes | None, registry: Registry) -> Sender | None:
        """The sender that a key tells of, remembered from now on; None if no sound record can have this key."""
        try:
            name, _, uid = (key or b"").decode().partition(":")
        except UnicodeDecodeError:
            return None
        tenant = registry.tenants.get(name)
        if key is None or tenant is None or not tenant.enabled or check_uid(uid) is not None:
            return None
        if len(self._senders) >= MAX_SENDERS:
            self._senders.clear()
        has_rules = bool(tenant.schemas) or tenant.only_listed_events
        cells = text(uid) + text(name)
        sender = Sender(name, uid, cells, tenant, self._erasures.floor(key), has_rules, self._destination(tenant.tier))
        self._senders[key] = sender
        return sender

    def _destination(self, tier: Tier) -> Destination:
        return self._destinations.setdefault(tier.name, Destination(tier))

    def _collect(self, found: Sorted) -> None:
        """Take the groups of all buckets, and what is latest in them; the next run starts with empty ones."""
        for destination in self._destinations.values():
            if destination.buckets:
                batches = found.batches.setdefault(destination.tier.cluster.name, [])
                for bucket in destination.buckets.values():
                    batches += bucket.groups.values()
                    self._look_over(bucket.groups, found.tenants, batches)
                destination.forget()

    def _look_over(self, groups: dict[bytes, Batch], tenants: Counter[str], batches: list[Batch]) -> None:
        """Count rows, and add what is latest: by group, not by record. Counting takes 0.05 us a record at three to a group."""
        rows: dict[str, int] = {}
        for key, batch in groups.items():
            # forgotten in mid-run, when there were too many to remember
            tenant = sender.tenant if (sender := self._senders.get(key)) else key.partition(b":")[0].decode()
            rows[tenant] = rows.get(tenant, 0) + len(batch)
            if tenant in self._latest and (found := newest(batch, self._latest[tenant])):
                batches.append(found)
        tenants.update(rows)

    def _follow(self, registry: Registry) -> None:
        if registry is not self._registry:  # what was remembered may no longer hold
            self._registry = registry
            self._senders.clear()
            self._names.clear()
            self._destinations.clear()
            self._latest = names_by_tenant(registry)


def admitted_to(cluster: str, records: Records, admission: Admission) -> Iterator[Record]:
    """Those of sorted records whose rows belong to a cluster: decided again, because sorting keeps only rows."""
    for record, key, value in records.records():
        verdict = admission.verdict(value, key, partial(first_place, record))
        if isinstance(verdict, Admitted | AdmittedPosts) and verdict.tier.cluster.name == cluster:
            yield record


def first_place(record: Record) -> Coordinates:
    """Where the record first stood: a replayed dead letter carries it, so that its identity does not change."""
    return origin(record.headers()) or Coordinates(record.topic(), record.partition(), record.offset())
