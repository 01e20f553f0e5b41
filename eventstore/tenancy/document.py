"""The registry document: from YAML bytes to a valid Registry, or every fault in it at once.

The rules across entries that make it safe: a cluster holds one table with one retention, so it serves one tier (or,
as a dedicated cluster, its own retention); no two clusters are the same table; secrets never stand in the document.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from eventstore.errors import RegistryError
from eventstore.events import CompiledSchema, SchemaInvalidError, compile_schema
from eventstore.events.validate import MAX_EVENT_NAME_BYTES, check_text
from eventstore.tenancy.model import ApiKey, Cluster, Registry, Tenant, Tier
from eventstore.tenancy.nodes import Node, Section, parse_nodes
from eventstore.tenancy.reading import DocumentReader
from eventstore.tenancy.sections import LINE, SectionReader

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TIER_KEYS: Final = ("retention", "cluster", "buckets", "impressions_retention", "compaction")
_TENANT_KEYS: Final = ("tier", "cluster", "enabled", "events", "other_events", "latest", "keys", "rate")
_LISTED: Final = re.compile(r"[^\0\n,\ud800-\udfff]+")
"""Names that questions put commas between."""
_NAMES_SHOWN: Final = 10
MAX_LATEST: Final = 100
"""Names of one question: ScyllaDB's default for max_clustering_key_restrictions_per_query."""


def parse_registry(
    content: bytes, read: Callable[[str], bytes], *, source: str = "registry", directory: Path = Path()
) -> Registry:
    """A valid registry.

    Args:
        content: the YAML document.
        read: gives the bytes of an event schema that the document names; may raise OSError.
        source: what the document is called in errors.
        directory: what relative paths of TLS and password files are relative to.

    Raises:
        RegistryError: every fault, each with its path and line.
    """
    root, problems = parse_nodes(content)
    reader = DocumentReader(problems)
    parse = _Document(reader, SectionReader(reader, directory), read)
    registry = parse.registry(root) if root is not None else None
    if registry is None or problems:
        raise RegistryError(source, sorted(set(problems), key=lambda problem: (problem.line or 0, problem.path)))
    return registry


@dataclass(slots=True)
class _Document:
    reader: DocumentReader
    sections: SectionReader
    read: Callable[[str], bytes]
    cluster_names: Mapping[str, Node] = field(default_factory=dict)
    tier_names: Mapping[str, Node] = field(default_factory=dict)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    tiers: dict[str, Tier] = field(default_factory=dict)
    dedicated: set[str] = field(default_factory=set)
    """Clusters that name a retention of their own, whether it is valid or not."""
    used_by: dict[str, str] = field(default_factory=dict)
    """Tiers by the cluster that they use."""
    key_owners: dict[str, str] = field(default_factory=dict)
    """Where each API key's digest stands."""
    schemas: dict[str, CompiledSchema | None] = field(default_factory=dict)
    """By path, each compiled once; None for one that is not a JSON Schema."""

    def registry(self, root: Node) -> Registry:
        fields = self.reader.fields(root, ("clusters", "tiers", "tenants"), ("clusters",))
        sections = {key: self.reader.section(node) for key, node in fields.items()}
        self.cluster_names, self.tier_names = sections.get("clusters", {}), sections.get("tiers", {})
        for name, node in self.cluster_names.items():
            self._cluster(name, node)
        self._refuse_shared_tables()
        for name, node in self.tier_names.items():
            self._tier(name, node)
        tenants = (self._tenant(name, node) for name, node in sections.get("tenants", {}).items())
        return Registry(self.clusters, self.tiers, {tenant.name: tenant for tenant in tenants if tenant})

    def _check_name(self, name: str, node: Node) -> None:
        if not _NAME.fullmatch(name):
            self.reader.complain(
                node, f"expected a name of 1 to 64 characters a-z 0-9 . _ -, first a letter or digit, got {name!r}"
            )

    def _cluster(self, name: str, node: Node) -> None:
        self._check_name(name, node)
        cluster, fields = self.sections.cluster(name, node)
        if cluster:
            self.clusters[name] = cluster
        if fields.keys() & {"retention", "impressions_retention", "buckets", "compaction"}:
            self.dedicated.add(name)
            self.reader.fields(node, fields, ("retention", "buckets"))
            self._add(name, self.sections.tier(name, fields, cluster))

    def _refuse_shared_tables(self) -> None:
        """Two clusters that are the same table would mix two retentions in it."""
        owners: dict[tuple[str, int, str], str] = {}
        for name, cluster in self.clusters.items():
            tables = [(point, cluster.port, cluster.keyspace) for point in cluster.contact_points]
            if owner := next((owners[table] for table in tables if table in owners), None):
                self.reader.complain(
                    self.cluster_names[name],
                    f"expected a table of its own, got the address and keyspace of clusters.{owner}; "
                    "one table holds one retention: give it other nodes or another keyspace",
                )
            owners.update(dict.fromkeys(tables, name))

    def _tier(self, name: str, node: Node) -> None:
        self._check_name(name, node)
        if name in self.dedicated:
            self.reader.complain(node, "expected a name that no dedicated cluster has: that is a tier of its own")
        fields = self.reader.fields(node, _TIER_KEYS, _TIER_KEYS[:3])
        cluster = self._reference(fields, "cluster", self.cluster_names, "clusters")
        if cluster is not None:
            self._refuse_shared_cluster(fields["cluster"], name, cluster)
        self._add(name, self.sections.tier(name, fields, self.clusters.get(cluster or "")))

    def _add(self, name: str, tier: Tier | None) -> None:
        if tier:
            self.tiers[name] = tier

    def _refuse_shared_cluster(self, node: Node, tier: str, cluster: str) -> None:
        other = self.used_by.setdefault(cluster, tier)
        if cluster in self.dedicated:
            self.reader.complain(node, f"expected a cluster without a retention of its own, got {cluster!r}")
        elif other != tier:
            self.reader.complain(
                node,
                f"expected a cluster of its own, got {cluster!r}, which tiers.{other} uses; "
                "one cluster is one table with one retention: add a cluster (another keyspace will do)",
            )

    def _tenant(self, name: str, node: Node) -> Tenant | None:
        self._check_name(name, node)
        fields = self.reader.fields(node, _TENANT_KEYS)
        tier = self._home(node, fields)
        enabled = self.reader.flag(fields["enabled"]) if "enabled" in fields else True
        schemas = self._schemas(fields["events"]) if "events" in fields else {}
        others = self.sections.text(fields, "other_events", "allow or refuse", re.compile("allow|refuse"))
        if others == "refuse" and "events" not in fields:
            self.reader.complain(fields["other_events"], "expected allow, since no events are listed: none could pass")
        keys = self._keys(fields["keys"]) if "keys" in fields else ()
        rate = self.sections.rate(fields["rate"]) if "rate" in fields else None
        latest = (
            self._latest(fields["latest"], fields.get("events") if others == "refuse" else None)
            if "latest" in fields
            else ()
        )
        if tier is None:
            return None
        return Tenant(name, tier, enabled is not False, schemas, others == "refuse", keys, rate, latest)

    def _keys(self, node: Node) -> tuple[ApiKey, ...]:
        """A tenant's keys. One key opens one tenant: with two owners, whoever came first would be told nothing of it."""
        keys = []
        for item in self.reader.items(node, "keys"):
            key = self.sections.key(item)
            if key and (owner := self.key_owners.setdefault(key.digest, item.path)) != item.path:
                self.reader.complain(item, f"expected a key that nobody else has, got that of {owner}")
            elif key:
                keys.append(key)
        return tuple(keys)

    def _latest(self, node: Node, accepted: Node | None) -> tuple[str, ...]:
        """Names of events; `accepted` has all that its tenant may send, None: any."""
        items = self.reader.items(node, "names of events")
        if len(items) > MAX_LATEST:
            self.reader.complain(node, f"expected at most {MAX_LATEST} names of events, got {len(items)}")
        names: list[str] = []
        for item in items:
            name = self.reader.text(item, "the name of an event without a comma", _LISTED)
            if name is None:
                continue
            if (wrong := check_text("event", name, MAX_EVENT_NAME_BYTES)) is not None:
                self.reader.complain(item, wrong.detail)
            elif name in names:
                self.reader.complain(item, f"expected each name once, got {name!r} again")
            elif isinstance(accepted, Section) and name not in accepted.entries:
                self.reader.complain(item, f"expected one of the listed events, since others are refused, got {name!r}")
            else:
                names.append(name)
        return tuple(names)

    def _home(self, node: Node, fields: Mapping[str, Node]) -> Tier | None:
        if ("tier" in fields) == ("cluster" in fields):
            if isinstance(node, Section):
                self.reader.complain(node, "expected exactly one of the keys 'tier' and 'cluster'")
            return None
        if "tier" in fields:
            return self.tiers.get(self._reference(fields, "tier", self.tier_names, "tiers") or "")
        name = self._reference(fields, "cluster", self.cluster_names, "clusters")
        if name is not None and name not in self.dedicated:
            self.reader.complain(
                fields["cluster"],
                f"expected a dedicated cluster, got {name!r}; give it retention and buckets, or name a tier",
            )
            return None
        return self.tiers.get(name or "")

    def _schemas(self, node: Node) -> dict[str, CompiledSchema]:
        found: dict[str, CompiledSchema] = {}
        for event, entry in self.reader.section(node).items():
            path = self.reader.text(entry, "the path of a JSON Schema file", LINE)
            if not event:
                self.reader.complain(entry, "expected the name of an event, got an empty one")
            elif path and (schema := self._schema(entry, path)):
                found[event] = schema
        return found

    def _schema(self, node: Node, path: str) -> CompiledSchema | None:
        if path not in self.schemas:
            self.schemas[path] = None
            try:
                self.schemas[path] = compile_schema(orjson.loads(self.read(path)))
            except OSError as error:
                self.reader.complain(
                    node, f"expected a readable JSON Schema file, got {error.strerror or error}: {path}"
                )
            except orjson.JSONDecodeError as error:
                self.reader.complain(node, f"expected JSON in {path}, got {error}")
            except SchemaInvalidError as error:
                self.reader.complain(node, f"expected a JSON Schema in {path}, got {error}")
        return self.schemas[path]

    def _reference(self, fields: Mapping[str, Node], key: str, names: Mapping[str, Node], where: str) -> str | None:
        """The name that a field gives, if there is an entry of that name, valid or not."""
        name = self.sections.text(fields, key, f"a name out of {where}", LINE)
        if name is None or name in names:
            return name
        known = ", ".join([each for each in names if _NAME.fullmatch(each)][:_NAMES_SHOWN]) + (
            "…" if len(names) > _NAMES_SHOWN else ""
        )
        self.reader.complain(fields[key], f"expected a name out of {where} ({known or 'none'}), got {name!r}")
        return None
