"""Maintenance: decide which artifacts the embedded servers need, and pin them."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jgo.maven

from eventstore.local.lockfile import Coordinate, Distribution, Pin

KAFKA = "4.1.2"
CASSANDRA = "5.0.9"
ROOTS = {
    # The library names no log back-end of its own; this one is the broker's own choice, of the version it asks for.
    "kafka": (KAFKA, (f"org.apache.kafka:kafka_2.13:{KAFKA}", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3")),
    # The agent is how snapshots are taken: nodetool and JMX need RMI, which the packaged JRE does not have.
    "cassandra": (
        CASSANDRA,
        (f"org.apache.cassandra:cassandra-all:{CASSANDRA}", "org.jolokia:jolokia-agent-jvm:2.2.9:javaagent"),
    ),
}
NOT_NEEDED = frozenset(
    {
        # TLS natives of every platform, 1 MB each: the embedded servers speak plain text on loopback
        "netty-tcnative-boringssl-static",
        # of nodetool only
        "sjk-cli",
        "sjk-core",
        "sjk-json",
        "sjk-stacktrace",
    }
)


def resolve(tell: Callable[[str], None]) -> dict[str, Distribution]:
    """Resolve `ROOTS` against the Maven repository and hash what comes; takes about a minute.

    Raises:
        Exception: whatever the resolver meets; this is for maintainers.
    """
    with TemporaryDirectory(prefix="eventstore-lock-") as scratch:
        context = jgo.maven.MavenContext(repo_cache=Path(scratch))
        return {name: _distribution(context, version, roots, tell) for name, (version, roots) in ROOTS.items()}


def _distribution(
    context: jgo.maven.MavenContext, version: str, roots: Iterable[str], tell: Callable[[str], None]
) -> Distribution:
    # One root at a time, the first to name an artifact decides its version: resolved together, every root's own
    # dependency management would rule all of them (and a log library once chose the broker's client).
    chosen: dict[tuple[str, str, str], Any] = {}
    for root in roots:
        asked, transitive = context.resolver.resolve([context.create_dependency(root)])
        for needed in (*asked, *transitive):
            if needed.type == "jar" and needed.artifactId not in NOT_NEEDED and not _is_packed(needed):
                chosen.setdefault((needed.groupId, needed.artifactId, needed.classifier), needed)
    return Distribution(version, dict(_pinned(needed, tell) for needed in chosen.values()))


def _is_packed(needed: Any) -> bool:
    """The agent's jar holds all that it depends on."""
    return bool(needed.groupId == "org.jolokia" and not needed.classifier)


def _pinned(needed: Any, tell: Callable[[str], None]) -> tuple[str, Pin]:
    coordinate = str(Coordinate(needed.groupId, needed.artifactId, needed.version, needed.classifier))
    tell(coordinate)
    content = needed.artifact.resolve().read_bytes()
    return coordinate, Pin(hashlib.sha256(content).hexdigest(), len(content))
