"""The parts of a registry document that stand alone: one cluster, and the rows that a tier keeps on one."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eventstore.tenancy.buckets import MAX_STRATEGIES, BucketHistory, BucketStrategy
from eventstore.tenancy.durations import format_duration
from eventstore.tenancy.model import ApiKey, Cluster, Compaction, Credentials, KeyUse, RateLimit, Tier, TlsFiles
from eventstore.tenancy.nodes import Node, Scalar
from eventstore.tenancy.reading import DocumentReader, described

HOUR: Final = 3_600
MAX_RETENTION: Final = 7_300 * 24 * HOUR
"""20 years: the longest time to live that CQL servers accept."""
MAX_BUCKETS_PER_READ: Final = 400
"""Partitions that reading a whole retention may touch."""

CLUSTER_KEYS: Final = (
    "contact_points", "port", "datacenter", "keyspace", "replication", "tls", "username", "password_env",
    "password_file", "retention", "impressions_retention", "buckets", "compaction",
)  # fmt: skip
_SECRETS: Final = frozenset({"password", "secret", "pass", "passwd"})
_KEYSPACE: Final = re.compile(r"(?!system)[a-z][a-z0-9_]{0,47}")
_DATACENTER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_ENVIRONMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_USE: Final = re.compile("|".join(KeyUse))
MAX_RATE: Final = 10_000_000
_COMPACTION: Final = re.compile("|".join(Compaction))
LINE: Final = re.compile(r"[^\0\n\ud800-\udfff]+")


@dataclass(frozen=True, slots=True)
class SectionReader:
    reader: DocumentReader
    directory: Path
    """What relative paths of TLS and password files are relative to."""

    def cluster(self, name: str, node: Node) -> tuple[Cluster | None, dict[str, Node]]:
        """A cluster, None if it has faults that leave no cluster; and its fields."""
        reader, secrets = self.reader, _SECRETS & self.reader.section(node).keys()
        for key in secrets:
            reader.complain(
                node, f"expected no secret in the registry, got {key!r}; name password_env or password_file"
            )
        fields = reader.fields(node, (*CLUSTER_KEYS, *secrets), ("contact_points", "datacenter"))
        contact_points = self._contact_points(fields.get("contact_points"))
        port = reader.whole(fields["port"], 1, 65_535) if "port" in fields else 9042
        datacenter = self.text(fields, "datacenter", "a datacenter's name", _DATACENTER)
        keyspace = self.text(fields, "keyspace", "1 to 48 characters a-z 0-9 _, not system…", _KEYSPACE, "eventstore")
        replication = reader.whole(fields["replication"], 1, 99) if "replication" in fields else 3
        tls = self._tls(fields["tls"]) if "tls" in fields else None
        login = self._credentials(node, fields)
        if not (contact_points and port and datacenter and keyspace and replication):
            return None, fields
        return Cluster(name, contact_points, port, datacenter, keyspace, replication, tls, login), fields

    def tier(self, name: str, fields: Mapping[str, Node], cluster: Cluster | None) -> Tier | None:
        """The rows that a tier, or a dedicated cluster, keeps: for how long, in which buckets."""
        retention = self._retention(fields, "retention")
        impressions = self._retention(fields, "impressions_retention") or retention
        buckets = (
            self._history(fields["buckets"], max(retention or 0, impressions or 0)) if "buckets" in fields else None
        )
        compaction = self.text(fields, "compaction", " or ".join(Compaction), _COMPACTION, Compaction.TIME_WINDOW)
        if not (cluster and retention and impressions and buckets and compaction):
            return None
        return Tier(name, retention, impressions, cluster, buckets, Compaction(compaction))

    def key(self, node: Node) -> ApiKey | None:
        """One API key of a tenant."""
        fields = self.reader.fields(node, ("use", "sha256"), ("use", "sha256"))
        use = self.text(fields, "use", " or ".join(KeyUse), _USE)
        digest = self.text(fields, "sha256", "the 64 hexadecimal digits that `eventstore keys create` gave", _DIGEST)
        return ApiKey(KeyUse(use), digest) if use and digest else None

    def rate(self, node: Node) -> RateLimit | None:
        """What a tenant may ask of one gateway; a burst is a second's worth unless it is named."""
        fields = self.reader.fields(node, ("per_second", "burst"), ("per_second",))
        rate = self.reader.whole(fields["per_second"], 1, MAX_RATE) if "per_second" in fields else None
        burst = self.reader.whole(fields["burst"], 1, MAX_RATE) if "burst" in fields else rate
        return RateLimit(rate, burst) if rate and burst else None

    def text(
        self, fields: Mapping[str, Node], key: str, what: str, pattern: re.Pattern[str], default: str | None = None
    ) -> str | None:
        return self.reader.text(fields[key], what, pattern) if key in fields else default

    def _retention(self, fields: Mapping[str, Node], key: str) -> int | None:
        return self.reader.duration(fields[key], HOUR, MAX_RETENTION) if key in fields else None

    def _path(self, fields: Mapping[str, Node], key: str) -> Path | None:
        found = self.text(fields, key, "the path of a file", LINE)
        return self.directory / found if found else None

    def _contact_points(self, node: Node | None) -> tuple[str, ...]:
        if node is None:
            return ()
        points = [self._contact_point(item) for item in self.reader.items(node, "host names or addresses")]
        found = tuple(dict.fromkeys(point for point in points if point))
        return found if None not in points else ()

    def _contact_point(self, node: Node) -> str | None:
        if isinstance(node, Scalar) and _is_ipv6(node.text):
            return node.text
        return self.reader.text(node, "a host name or address without a port (that is a key of its own)", _HOST)

    def _tls(self, node: Node) -> TlsFiles | None:
        fields = self.reader.fields(node, ("ca", "certificate", "key", "verify_hostname"), ("ca",))
        if ("certificate" in fields) != ("key" in fields):
            self.reader.complain(node, "expected certificate and key together, got one of them")
        verify = self.reader.flag(fields["verify_hostname"]) if "verify_hostname" in fields else True
        ca, certificate, key = (self._path(fields, name) for name in ("ca", "certificate", "key"))
        return TlsFiles(ca, certificate, key, verify is not False) if ca else None

    def _credentials(self, node: Node, fields: Mapping[str, Node]) -> Credentials | None:
        passwords = fields.keys() & {"password_env", "password_file"}
        if ("username" in fields, len(passwords)) not in {(True, 1), (False, 0)}:
            self.reader.complain(node, "expected username with exactly one of password_env and password_file, or none")
        username = self.text(fields, "username", "a user name", LINE)
        variable = self.text(fields, "password_env", "the name of an environment variable", _ENVIRONMENT)
        file = self._path(fields, "password_file")
        return Credentials(username, variable, file) if username and (variable or file) else None

    def _history(self, node: Node, retention: int) -> BucketHistory | None:
        items = self.reader.items(node, "bucket strategies")
        if len(items) > MAX_STRATEGIES:
            self.reader.complain(node, f"expected at most {MAX_STRATEGIES} bucket strategies, got {len(items)}")
            return None
        read = [self._strategy(index, item, retention) for index, item in enumerate(items)]
        strategies = tuple(strategy for strategy in read if strategy)
        if not strategies or None in read:
            return None
        try:
            return BucketHistory(strategies)
        except ValueError as error:
            self.reader.complain(node, str(error))
            return None

    def _strategy(self, index: int, node: Node, retention: int) -> BucketStrategy | None:
        fields = self.reader.fields(node, ("width", "effective_from"), ("width",))
        start = self.reader.instant(fields["effective_from"]) if "effective_from" in fields else None
        if index == 0 and "effective_from" in fields:
            self.reader.complain(fields["effective_from"], "expected none: the first strategy reigns from the epoch")
        if index > 0 and "effective_from" not in fields:
            self.reader.complain(node, "expected the key 'effective_from': only the first strategy has none")
        width = self._width(fields["width"], retention) if "width" in fields else None
        return BucketStrategy(start or 0, width * 1000) if width and (index == 0 or start) else None

    def _width(self, node: Node, retention: int) -> int | None:
        width = self.reader.duration(node, HOUR, MAX_RETENTION)
        if width and retention > MAX_BUCKETS_PER_READ * width:
            least = format_duration(-(-retention // (MAX_BUCKETS_PER_READ * HOUR)) * HOUR)
            self.reader.complain(
                node,
                f"expected at least {least}, so that reading a whole retention touches at most "
                f"{MAX_BUCKETS_PER_READ} buckets, got {described(node)}",
            )
        return width


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
