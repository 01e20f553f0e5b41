"""What a cluster's trouble may cost: its own tenants' reads, bounded in number and time, and nobody else's."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, TypeVar

import structlog

from eventstore.errors import ConfigurationError, QueryError, StoreError, TransientStoreError
from eventstore.gateway.http import Header, HttpError
from eventstore.tenancy import Tenant

T = TypeVar("T")

log = structlog.stdlib.get_logger(__name__)

AGAIN_SOON: Final[Header] = ("retry-after", "1")
AGAIN_LATER: Final[Header] = ("retry-after", "30")
"""When a person has to mend something first."""
LOG_SECONDS: Final = 1.0
"""Between two lines about the same cluster, however many reads it fails."""


@dataclass(slots=True)
class Bulkhead:
    """Reads of clusters, and what they are answered when they fail."""

    most_open: int
    """Reads of one cluster worked on at a time."""
    seconds: float
    """Until a read is given up."""
    _open: Counter[str] = field(default_factory=Counter)
    _logged: dict[str, float] = field(default_factory=dict)

    async def ask(self, tenant: Tenant, question: Callable[[], Awaitable[T]]) -> T:
        """The question's answer, if it comes in time.

        Raises:
            HttpError: 400 the question cannot be answered, 503 the tenant's cluster is away or busy, 504 it took too long.
        """
        with self.place(tenant):
            return await self.in_time(tenant, question())

    @contextmanager
    def place(self, tenant: Tenant) -> Iterator[None]:
        """One of the places that reads of the tenant's cluster have.

        Raises:
            HttpError: 503, all are taken.
        """
        cluster = tenant.tier.cluster.name
        if self._open[cluster] >= self.most_open:
            raise HttpError(
                503, f"tenant {tenant.name!r}: too many reads of its store are under way: try again", (AGAIN_SOON,)
            )
        self._open[cluster] += 1
        try:
            yield
        finally:
            self._open[cluster] -= 1

    async def in_time(self, tenant: Tenant, answer: Awaitable[T]) -> T:
        """The answer, for a read that has its place. Raises as `ask` does."""
        try:
            async with asyncio.timeout(self.seconds):
                return await answer
        except TimeoutError:
            raise HttpError(
                504,
                f"tenant {tenant.name!r}: expected its store's answer within {self.seconds:g} s, got none; "
                "ask for a shorter range, or try again",
            ) from None
        except QueryError as error:
            raise HttpError(400, str(error)) from error
        except TransientStoreError as error:
            self._log(tenant, error)
            raise HttpError(
                503, f"tenant {tenant.name!r}: its store does not answer: try again", (AGAIN_SOON,)
            ) from error
        except (StoreError, ConfigurationError) as error:
            self._log(tenant, error)
            raise HttpError(
                503, f"tenant {tenant.name!r}: its store refuses us; see the gateway's log", (AGAIN_LATER,)
            ) from error

    def _log(self, tenant: Tenant, error: Exception) -> None:
        """Addresses and causes are the operator's to know, not the caller's."""
        cluster, now = tenant.tier.cluster.name, monotonic()
        if now - self._logged.get(cluster, -LOG_SECONDS) >= LOG_SECONDS:
            self._logged[cluster] = now
            log.warning("read failed", cluster=cluster, error=str(error))
