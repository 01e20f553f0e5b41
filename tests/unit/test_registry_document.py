"""A registry document: what is valid, and what each fault is told as."""

from collections.abc import Callable
from pathlib import Path

import pytest

from eventstore.errors import RegistryError
from eventstore.events import Reason
from eventstore.tenancy import Compaction, Credentials, Registry, TlsFiles, parse_duration
from eventstore.tenancy.document import parse_registry

pytestmark = pytest.mark.unit

VALID = """\
clusters:
  c15: {contact_points: [10.0.0.1, node-2], datacenter: dc1}
  vip:
    contact_points: ["::1"]
    port: 9142
    datacenter: eu-west_1
    keyspace: vip
    replication: 1
    tls: {ca: ca.pem, certificate: c.pem, key: k.pem, verify_hostname: false}
    username: eventstore
    password_env: VIP_PASSWORD
    retention: 90d
    buckets:
      - width: 10d
      - {effective_from: 2027-01-01T00:00:00+01:00, width: 5d}
    compaction: incremental
tiers:
  t15: {retention: 15d, impressions_retention: 60d, cluster: c15, buckets: [{width: 12h}]}
tenants:
  shop: {tier: t15, events: {viewed: viewed.json}, other_events: refuse, latest: [viewed]}
  no: {cluster: vip}
  gone: {tier: t15, enabled: false}
"""


def no_files(name: str) -> bytes:
    raise FileNotFoundError(2, "No such file or directory", name)


def parse(document: str, read: Callable[[str], bytes] = no_files) -> Registry:
    return parse_registry(document.encode(), read, directory=Path("/etc/eventstore"))


def problems(document: str, read: Callable[[str], bytes] = no_files) -> list[str]:
    with pytest.raises(RegistryError) as caught:
        parse(document, read)
    return [str(problem) for problem in caught.value.problems]


def changed(old: str, new: str) -> str:
    assert VALID.count(old) == 1
    return VALID.replace(old, new)


def viewed(name: str) -> bytes:
    assert name == "viewed.json"
    return b'{"type": "object", "required": ["id"]}'


def test_a_valid_document_gives_clusters_tiers_and_tenants() -> None:
    registry = parse(VALID, viewed)
    vip, t15 = registry.tiers["vip"], registry.tiers["t15"]
    assert registry.clusters["c15"].contact_points == ("10.0.0.1", "node-2")
    assert (registry.clusters["c15"].port, registry.clusters["c15"].replication) == (9042, 3)
    assert registry.clusters["c15"].keyspace == "eventstore"
    assert vip.cluster.tls == TlsFiles(
        Path("/etc/eventstore/ca.pem"), Path("/etc/eventstore/c.pem"), Path("/etc/eventstore/k.pem"), False
    )
    assert vip.cluster.credentials == Credentials("eventstore", password_env="VIP_PASSWORD")
    assert (vip.retention_seconds, vip.compaction) == (90 * 86_400, Compaction.INCREMENTAL)
    assert (vip.impressions_retention_seconds, t15.impressions_retention_seconds) == (90 * 86_400, 60 * 86_400)
    assert [s.begins for s in vip.buckets.strategies] == ["1970-01-01T00:00:00Z", "2026-12-31T23:00:00Z"]
    assert [s.width_ms for s in t15.buckets.strategies] == [12 * 3_600_000]
    assert registry.tier_of("c15") is t15
    assert registry.tenants["no"].tier is vip
    assert [tenant.enabled for tenant in registry.tenants.values()] == [True, True, False]
    assert [tenant.latest for tenant in registry.tenants.values()] == [("viewed",), (), ()]


def test_listed_events_are_checked_by_their_schema() -> None:
    shop = parse(VALID, viewed).tenants["shop"]
    assert shop.only_listed_events
    rejected = shop.schemas["viewed"].check(b"{}")
    assert rejected is not None
    assert rejected.reason is Reason.SCHEMA
    assert shop.schemas["viewed"].check(b'{"id": 1}') is None


def test_a_schema_that_many_tenants_share_is_read_and_compiled_once() -> None:
    reads: list[str] = []

    def read(name: str) -> bytes:
        reads.append(name)
        return b"{}"

    more = "".join(f"  t{n}: {{tier: t15, events: {{viewed: viewed.json}}}}\n" for n in range(50))
    registry = parse(VALID + more, read)
    assert reads == ["viewed.json"]
    assert registry.tenants["t1"].schemas["viewed"] is registry.tenants["t49"].schemas["viewed"]


def test_the_example_is_valid() -> None:
    directory = Path(__file__).parents[2] / "schemas"
    document = (directory / "tenants.example.yaml").read_bytes()
    assert set(parse_registry(document, lambda name: (directory / name).read_bytes()).tiers) == {"t15", "t30", "vip"}


def test_all_problems_are_told_at_once_in_the_order_of_the_document() -> None:
    document = changed("retention: 15d", "retention: soon").replace("datacenter: dc1", "datacentre: dc1")
    told = problems(document.replace("cluster: vip}", "cluster: vup}"), viewed)
    assert told == [
        "clusters.c15 (line 2): expected the key 'datacenter', which is missing or empty",
        (
            "clusters.c15.datacentre (line 2): expected one of contact_points, port, datacenter, keyspace, "
            "replication, tls, username, password_env, password_file, retention, impressions_retention, "
            "buckets, compaction, "
            "got the key 'datacentre'; did you mean 'datacenter'?"
        ),
        "tiers.t15.retention (line 18): expected a duration such as 15d or 12h, got 'soon'",
        "tenants.no.cluster (line 21): expected a name out of clusters (c15, vip), got 'vup'",
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("contact_points: [10.0.0.1, node-2]", "contact_points: []", "contact_points (line 2): expected a list of host"),
        ("10.0.0.1, node-2", "10.0.0.1:9042", "without a port (that is a key of its own), got '10.0.0.1:9042'"),
        ("10.0.0.1, node-2", "[nested]", "expected a host name or address without a port"),
        ("port: 9142", "port: 70000", "port (line 5): expected a whole number from 1 to 65535, got '70000'"),
        ("port: 9142", "port: {a: 1}", "port (line 5): expected a whole number from 1 to 65535, got a mapping"),
        ("keyspace: vip", "keyspace: system_auth", "keyspace (line 7): expected 1 to 48 characters"),
        ("keyspace: vip", "keyspace: Upper", "keyspace (line 7): expected 1 to 48 characters"),
        ("replication: 1", "replication: 0", "expected a whole number from 1 to 99, got '0'"),
        ("datacenter: dc1", "datacenter: \"d'; DROP\"", "expected a datacenter's name"),
        ("certificate: c.pem, ", "", "tls (line 9): expected certificate and key together"),
        ("ca: ca.pem, ", "", "tls (line 9): expected the key 'ca', which is missing or empty"),
        ("verify_hostname: false", "verify_hostname: no", "verify_hostname (line 9): expected true or false, got 'no'"),
        ("username: eventstore", "port: 1", "expected each key once, but it stands on line 5 too"),
        ("    username: eventstore\n", "", "expected username with exactly one of password_env and password_file"),
        ("password_env: VIP_PASSWORD", "password_env: 1X", "expected the name of an environment variable, got '1X'"),
        ("password_env: VIP_PASSWORD", "password: hunter2", "got 'password'; name password_env or password_file"),
        ("    retention: 90d\n", "", "clusters.vip (line 3): expected the key 'retention', which is missing"),
        ("retention: 90d", "retention: 30y", "expected a duration such as 15d or 12h, got '30y'"),
        ("retention: 90d", "retention: 59m", "expected 1h to 7300d, got '59m'"),
        ("retention: 90d", "retention: [90d]", "expected a duration such as 15d or 12h, got a list"),
        ("width: 10d", "width: 5h", "expected at least 6h, so that reading a whole retention touches at most 400"),
        ("impressions_retention: 60d", "impressions_retention: 300d", "expected at least 18h, so that reading a whole"),
        ("- width: 10d", "- {width: 10d, effective_from: 2020-01-01T00:00:00Z}", "the first strategy reigns from the"),
        ("effective_from: 2027-01-01T00:00:00+01:00, ", "", "expected the key 'effective_from': only the first"),
        ("2027-01-01T00:00:00+01:00", "2027-01-01T00:00:00", "expected a time after 1970 such as 2027-01-01T00:00"),
        ("2027-01-01T00:00:00+01:00", "2027-02-30T00:00:00Z", "expected a time after 1970"),
        ("2027-01-01T00:00:00+01:00", "1969-01-01T00:00:00Z", "expected a time after 1970"),
        ("width: 5d}", "width: 5d}\n      - {effective_from: 2026-01-01T00:00:00Z, width: 1d}", "strategies in ascending"),
        ("compaction: incremental", "compaction: leveled", "expected time_window or incremental, got 'leveled'"),
        ("cluster: c15,", "cluster: vip,", "expected a cluster without a retention of its own, got 'vip'"),
        ("buckets: [{width: 12h}]", "buckets: 12h", "expected a list of bucket strategies, got '12h'"),
        ("  t15: {", "  T 15: {", "expected a name of 1 to 64 characters a-z 0-9 . _ -, first a letter or digit"),
        ("  t15: {", "  vip: {", "expected a name that no dedicated cluster has"),
        ("  no: {cluster: vip}", "  no: {cluster: c15}", "expected a dedicated cluster, got 'c15'"),
        ("  no: {cluster: vip}", "  no: {cluster: vip, tier: t15}", "expected exactly one of the keys 'tier' and"),
        ("  no: {cluster: vip}", "  no: {}", "expected exactly one of the keys 'tier' and 'cluster'"),
        ("  no: {cluster: vip}", "  no:", "tenants.no (line 21): expected a mapping, got nothing"),
        ("  no: {cluster: vip}", "  a:b: {cluster: vip}", "tenants.a:b (line 21): expected a name of 1 to 64"),
        ("  no: {cluster: vip}", "  no: {tier: t16}", "expected a name out of tiers (t15), got 't16'"),
        ("enabled: false", "enabled: 'false'", "expected true or false, got 'false'"),
        ("other_events: refuse", "other_events: maybe", "expected allow or refuse, got 'maybe'"),
        ("events: {viewed: viewed.json}, ", "", "expected allow, since no events are listed: none could pass"),
        ("viewed: viewed.json", "'': viewed.json", "expected the name of an event, got an empty one"),
        ("viewed: viewed.json", "viewed: [a]", "expected the path of a JSON Schema file, got a list"),
        ("enabled: false", "enabled: !!python/name:os.system x", "expected a value without a YAML tag"),
        ("enabled: false", "? [a, b] : c", "expected a name as the key of a mapping"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place_and_what_was_expected(old: str, new: str, told: str) -> None:
    assert any(told in problem for problem in problems(changed(old, new), viewed))


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("", "document (line 1): expected a registry, got an empty document"),
        ("clusters: {}\n---\nclusters: {}", "document (line 2): expected one document, got several"),
        ("clusters: [", "expected YAML: "),
        ("clusters: *nowhere", "clusters (line 1): expected an anchor &nowhere above its alias"),
        ("- a", "document (line 1): expected a mapping, got a list"),
        ("tenants: {}", "document (line 1): expected the key 'clusters', which is missing or empty"),
        ("clusters:", "document (line 1): expected the key 'clusters', which is missing or empty"),
        ("clusters: " + "[" * 100_000, "expected at most 16 levels of nesting"),
        ("clusters: {a: \0}", "document: expected YAML: unacceptable character"),
        (f"clusters: {{a: {'x' * 200}}}", "clusters.a (line 1): expected a mapping, got '" + "x" * 60 + "…'"),
    ],
)
def test_what_is_no_registry_document_is_told_as_one_problem(document: str, told: str) -> None:
    assert any(told in problem for problem in problems(document))


def test_text_that_is_not_utf_8_is_told_with_its_line() -> None:
    with pytest.raises(RegistryError, match=r"document \(line 2\): expected UTF-8, got invalid start byte"):
        parse_registry(b"clusters: {}\n# \xff\n", no_files)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"not json", "expected JSON in viewed.json"),
        (b'{"type": "objekt"}', "expected a JSON Schema in viewed.json"),
        (b'{"$ref": "http://127.0.0.1:9/elsewhere.json"}', "is outside the document"),
        (b'{"$schema": "http://127.0.0.1:9/"}', "expected the dialect https://json-schema.org/draft/2020-12/schema"),
        (None, "expected a readable JSON Schema file, got No such file or directory: viewed.json"),
    ],
)
def test_a_schema_that_cannot_be_used_is_told_at_its_place(content: bytes | None, told: str) -> None:
    def read(name: str) -> bytes:
        return no_files(name) if content is None else content

    (problem,) = problems(VALID, read)
    assert problem.startswith("tenants.shop.events.viewed (line 20): ")
    assert told in problem


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            "[viewed, bought]",
            "latest[1] (line 20): expected one of the listed events, since others are refused, got 'bought'",
        ),
        ("[viewed, viewed]", "latest[1] (line 20): expected each name once, got 'viewed' again"),
        (f"[{'x' * 129}]", "latest[0] (line 20): event: expected 1 to 128 bytes, got 129"),
        ("[]", "latest (line 20): expected a list of names of events, got an empty list"),
        ("['a,b']", "latest[0] (line 20): expected the name of an event without a comma, got 'a,b'"),
        ("viewed", "latest (line 20): expected a list of names of events, got 'viewed'"),
        ("[[viewed]]", "latest[0] (line 20): expected the name of an event without a comma, got a list"),
    ],
)
def test_names_of_events_whose_newest_are_kept_are_checked(names: str, told: str) -> None:
    assert f"tenants.shop.{told}" in problems(changed("latest: [viewed]", f"latest: {names}"), viewed)


def test_only_so_many_names_of_events_can_be_kept() -> None:
    many = changed("other_events: refuse, latest: [viewed]", f"latest: [{', '.join(f'n{n}' for n in range(101))}]")
    assert problems(many, viewed) == ["tenants.shop.latest (line 20): expected at most 100 names of events, got 101"]


def test_one_cluster_cannot_serve_two_tiers() -> None:
    second = "tiers:\n  t7: {retention: 7d, cluster: c15, buckets: [{width: 1d}]}"
    (problem,) = problems(changed("tiers:", second), viewed)
    assert "tiers.t15.cluster" in problem
    assert "expected a cluster of its own, got 'c15', which tiers.t7 uses" in problem


def test_two_clusters_cannot_be_the_same_table() -> None:
    twin = "tiers:\n"
    document = VALID.replace(twin, "  c16: {contact_points: [10.0.0.9, node-2], datacenter: dc1}\n" + twin)
    (problem,) = problems(document, viewed)
    assert "clusters.c16" in problem
    assert "got the address and keyspace of clusters.c15; one table holds one retention" in problem


def test_an_invalid_cluster_is_not_also_told_as_unknown() -> None:
    (problem,) = problems(changed("datacenter: dc1", "datacenter: ''"), viewed)
    assert problem.startswith("clusters.c15.datacenter")


def test_more_strategies_than_versions_are_a_problem() -> None:
    many = "[" + "{width: 1d}, " * 129 + "]"
    (problem,) = problems(changed("[{width: 12h}]", many), viewed)
    assert "expected at most 128 bucket strategies, got 129" in problem


def test_an_anchor_may_stand_for_what_is_repeated() -> None:
    registry = parse(changed("no: {cluster: vip}", "no: &big {cluster: vip}") + "  yes: *big\n", viewed)
    assert registry.tenants["yes"].tier is registry.tenants["no"].tier


@pytest.mark.parametrize("text", ["", "d", "15", "-1d", "1.5h", "1d12h", "15 d", "９d", "1234567890d"])
def test_other_spellings_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 15d"):
        parse_duration(text)
