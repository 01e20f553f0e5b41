"""The door: whose key a request came with, what it opens, and how much its tenant may ask for."""

from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from eventstore.gateway.http import Headers, HttpError, Request
from eventstore.gateway.limits import TenantLimits
from eventstore.gateway.routes import Guard, Route
from eventstore.tenancy import Registry, Tenant
from eventstore.tenancy.keys import KeyRing

MAX_KEY_LENGTH: Final = 1_024
CHALLENGE: Final = ("www-authenticate", 'Basic realm="eventstore", charset="UTF-8"')


@dataclass(slots=True)
class Doorkeeper:
    """Lets requests in, or raises what they are answered with."""

    registry: Callable[[], Registry]
    """The registry in force; a revoked key opens nothing from the next request on."""
    monotonic: Callable[[], float]
    _limits: TenantLimits = field(default_factory=TenantLimits)
    _of: Registry | None = None
    _ring: KeyRing = field(default_factory=lambda: KeyRing({}))

    def admit(self, route: Route, headers: Headers, params: Mapping[str, str]) -> Tenant | None:
        """The tenant whose key the headers bear; None where the route asks for none, or will look into the body.

        Raises:
            HttpError: 401 without a key that anybody has, 403 with one of another tenant or use.
        """
        if route.guard is Guard.OPEN:
            return None
        key = bearer(headers)
        if key is None:
            if route.key_in_body:
                return None
            raise HttpError(401, f"expected a {route.guard.value} key, got none: {_HOW}", (CHALLENGE,))
        tenant = self.tenant_of(key, route.guard)
        if params.get("tenant", tenant.name) != tenant.name:
            raise HttpError(403, f"expected a key of tenant {params['tenant']!r}, got one of another tenant")
        return tenant

    def tenant_of(self, key: str | None, guard: Guard) -> Tenant:
        """The tenant that a key opens for this use.

        Raises:
            HttpError: 401, 403.
        """
        access = self._keys().access(key) if key and len(key) <= MAX_KEY_LENGTH else None
        if access is None:
            raise HttpError(
                401, f"expected a key of this registry, got {'another' if key else 'none'}: {_HOW}", (CHALLENGE,)
            )
        if access.use is not guard.value:
            raise HttpError(403, f"expected a {guard.value} key, got a {access.use} key")
        if not access.tenant.enabled:
            raise HttpError(403, "the tenant of this key is disabled")
        return access.tenant

    def charged(self, request: Request) -> Tenant:
        """The tenant whose key a guarded request came with, after counting the request as one read. Raises as `charge` does."""
        assert request.tenant is not None  # noqa: S101 — the guard
        self.charge(request.tenant, 1)
        return request.tenant

    def charge(self, tenant: Tenant, tokens: int) -> None:
        """Count so many events or reads against the tenant's rate.

        Raises:
            HttpError: 429, with the seconds to wait.
        """
        wait = self._limits.wait(tenant.name, tenant.rate, tokens, self.monotonic())
        if wait > 0 and tenant.rate is not None:
            raise HttpError(
                429,
                f"tenant {tenant.name!r}: expected at most {tenant.rate.per_second} events and reads a second",
                (("retry-after", str(ceil(wait))),),
            )

    def _keys(self) -> KeyRing:
        registry = self.registry()
        if registry is not self._of:
            self._of, self._ring = registry, KeyRing.of(registry)
        return self._ring


_HOW: Final = "send it as `Authorization: Bearer KEY`, or as the user name of Basic"


def bearer(headers: Headers) -> str | None:
    """The key in the Authorization header: a bearer token, or the user name of Basic, as Segment's libraries send it.

    Raises:
        HttpError: the header is there and cannot be read.
    """
    header = headers.get("authorization")
    if header is None:
        return None
    scheme, _, value = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic" and len(value) <= 2 * MAX_KEY_LENGTH:
        try:
            return b64decode(value.strip(), validate=True).decode().partition(":")[0]
        except ValueError:  # not base64, not even ASCII, or not UTF-8 within
            pass
    raise HttpError(401, f"authorization: expected Bearer or Basic, got another or broken one; {_HOW}", (CHALLENGE,))
