"""API keys: what opens a tenant to the HTTP edge. The registry holds their digests only, never the keys."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple

from eventstore.tenancy.model import ApiKey, KeyUse, Registry, Tenant


class Access(NamedTuple):
    """Whose key it is, and what for."""

    tenant: Tenant
    use: KeyUse


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All keys of a registry."""

    _keys: Mapping[str, tuple[ApiKey, Tenant]]

    @classmethod
    def of(cls, registry: Registry) -> "KeyRing":
        return cls({key.digest: (key, tenant) for tenant in registry.tenants.values() for key in tenant.keys})

    def access(self, key: str) -> Access | None:
        """What the key opens; None if nobody has it.

        The table is asked by digest: how long that takes tells at most of a digest, from which no key can be made. The
        comparison that decides takes the same time wherever two digests differ.
        """
        digest = digest_of(key)
        found, tenant = self._keys.get(digest, (_NOBODYS, None))
        return Access(tenant, found.use) if hmac.compare_digest(found.digest, digest) and tenant else None


def digest_of(key: str) -> str:
    """The digest that the registry keeps of a key. Any text is a key, so that clients may keep one of another system."""
    return sha256(key.encode(errors="surrogatepass")).hexdigest()


def key_text(use: KeyUse, random: bytes) -> str:
    """A new key: its use can be read off it, so that one in the wrong place is seen."""
    return f"es{use.value[0]}_{random.hex()}"


_NOBODYS: Final = ApiKey(KeyUse.READ, "0" * 64)
