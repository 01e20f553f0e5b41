"""API keys and rates: what opens a tenant, and for how much."""

from dataclasses import replace

import pytest

from eventstore.tenancy import ApiKey, KeyUse, RateLimit, Tenant
from eventstore.tenancy.keys import KeyRing, digest_of, key_text
from tests.builders import registry, tier
from tests.unit.test_registry_document import parse, problems

pytestmark = pytest.mark.unit

WRITE, READ = key_text(KeyUse.WRITE, b"\1" * 32), key_text(KeyUse.READ, b"\2" * 32)
SHOP = Tenant("shop", tier(), keys=(ApiKey(KeyUse.WRITE, digest_of(WRITE)), ApiKey(KeyUse.READ, digest_of(READ))))
RING = KeyRing.of(registry(SHOP, Tenant("forum", tier("t15", days=15))))


def document(tenant: str) -> str:
    return f"""\
clusters:
  c15: {{contact_points: [a], datacenter: dc1, retention: 15d, buckets: [{{width: 5d}}]}}
tenants:
  shop: {{cluster: c15, {tenant}}}
  forum: {{cluster: c15, keys: [{{use: read, sha256: {"b" * 64}}}]}}
"""


def test_a_key_opens_its_own_tenant_for_its_own_use() -> None:
    for key, use in ((WRITE, KeyUse.WRITE), (READ, KeyUse.READ)):
        access = RING.access(key)
        assert access is not None
        assert (access.tenant.name, access.use) == ("shop", use)


@pytest.mark.parametrize("key", ["", "esw_", WRITE[:-1], WRITE + "0", WRITE.upper(), digest_of(WRITE), "\ud800", "é"])
def test_anything_else_opens_nothing(key: str) -> None:
    assert RING.access(key) is None


def test_a_revoked_key_opens_nothing() -> None:
    assert KeyRing.of(registry(replace(SHOP, keys=SHOP.keys[1:]))).access(WRITE) is None


def test_a_keys_use_can_be_read_off_it() -> None:
    assert WRITE.startswith("esw_")
    assert READ.startswith("esr_")


def test_the_registry_holds_several_keys_of_one_use() -> None:
    keys = ", ".join(f"{{use: write, sha256: {digit * 64}}}" for digit in "cd")
    shop = parse(document(f"keys: [{keys}]")).tenants["shop"]
    assert [(key.use, key.id) for key in shop.keys] == [(KeyUse.WRITE, "c" * 12), (KeyUse.WRITE, "d" * 12)]


@pytest.mark.parametrize(
    ("tenant", "told"),
    [
        ("keys: []", "expected a list of keys"),
        ("keys: [{use: write}]", "expected the key 'sha256'"),
        ("keys: [{use: admin, sha256: " + "c" * 64 + "}]", "expected write or read"),
        ("keys: [{use: read, sha256: abc}]", "expected the 64 hexadecimal digits"),
        ("keys: [{use: read, sha256: " + "b" * 64 + "}]", "expected a key that nobody else has"),
        ("rate: {per_second: 0}", "expected a whole number from 1"),
        ("rate: {burst: 5}", "expected the key 'per_second'"),
    ],
)
def test_a_key_or_rate_that_cannot_be_is_told_by_its_place(tenant: str, told: str) -> None:
    assert any(told in problem for problem in problems(document(tenant)))


def test_a_burst_is_a_seconds_worth_unless_it_is_named() -> None:
    assert parse(document("rate: {per_second: 5}")).tenants["shop"].rate == RateLimit(5, 5)
    assert parse(document("rate: {per_second: 5, burst: 9}")).tenants["shop"].rate == RateLimit(5, 9)
