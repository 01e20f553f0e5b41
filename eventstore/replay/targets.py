"""Whether the clusters that a replay writes are ready for it."""

from eventstore.errors import EventstoreError
from eventstore.store.schema import require_schema
from eventstore.store.session import close, connect
from eventstore.tenancy import Registry, Tier


def unready(meant: Registry, request_timeout: float) -> list[str]:
    """Why clusters of this registry cannot be written: away, or without the schema that their tier needs. Blocks."""
    return [why for tier in meant.tiers.values() if (why := _trouble(tier, request_timeout)) is not None]


def _trouble(tier: Tier, request_timeout: float) -> str | None:
    try:
        session = connect(tier.cluster, request_timeout=request_timeout)
        try:
            require_schema(session, tier)
        finally:
            close(session)
    except EventstoreError as error:
        return str(error)
    return None
