"""A Timeline over the clusters of a registry: what a product's process opens once and keeps."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from eventstore.clock import now_ms
from eventstore.config import Settings
from eventstore.store.reader import EventReaders
from eventstore.tenancy import Registry
from eventstore.timeline.timeline import Timeline


@asynccontextmanager
async def open_timeline(settings: Settings, registry: Callable[[], Registry]) -> AsyncIterator[Timeline]:
    """A Timeline that connects to a cluster when one of its tenants is first asked for; leaving ends the sessions.

    `registry` gives the registry in force at each call: `lambda: file.current` of a watched `RegistryFile`, say.
    """
    readers = EventReaders(settings.reader)
    max_future_ms = int(settings.worker.max_future * 1_000)
    try:
        yield Timeline(_following(registry, readers), readers, now_ms, settings.reader, max_future_ms)
    finally:
        await readers.close()


def _following(registry: Callable[[], Registry], readers: EventReaders) -> Callable[[], Registry]:
    """The registry in force; sessions with clusters that a new one has changed or removed are let go of."""
    seen: Registry | None = None

    def current() -> Registry:
        nonlocal seen
        if (found := registry()) is not seen:
            seen = found
            readers.retain(found.clusters.values())
        return found

    return current
