"""What the embedded servers are made of: artifacts pinned by coordinate, size and SHA-256.

The lock names no address: the repository is a setting, and its default is known to `jgo`.
"""

import platform
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

import msgspec

from eventstore.errors import LocalStackError

LOCK_NAME = "artifacts.lock.json"
_NATIVE = re.compile(r"(linux|osx|windows)-\w+")
_SYSTEMS = {"Linux": "linux", "Darwin": "osx"}
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch_64", "arm64": "aarch_64"}


class Coordinate(msgspec.Struct, frozen=True, order=True):
    """A jar's name in a Maven repository."""

    group: str
    name: str
    version: str
    classifier: str = ""

    @classmethod
    def parse(cls, text: str) -> "Coordinate":
        """From `group:name:version` or `group:name:version:classifier`."""
        return cls(*text.split(":"))

    def __str__(self) -> str:
        return ":".join(filter(None, (self.group, self.name, self.version, self.classifier)))

    @property
    def path(self) -> str:
        """Where the jar lies below a repository's root."""
        stem = "-".join(filter(None, (self.name, self.version, self.classifier)))
        return f"{self.group.replace('.', '/')}/{self.name}/{self.version}/{stem}.jar"


class Pin(msgspec.Struct, frozen=True):
    sha256: str
    size: int
    """Bytes."""


class Artifact(msgspec.Struct, frozen=True):
    coordinate: Coordinate
    pin: Pin


class Distribution(msgspec.Struct, frozen=True):
    """One server's version and class path."""

    version: str
    artifacts: dict[str, Pin]
    """By coordinate, in class path order."""

    def needed_here(self) -> tuple[Artifact, ...]:
        """The artifacts for this machine: native libraries of other platforms are left out."""
        every = (Artifact(Coordinate.parse(text), pin) for text, pin in self.artifacts.items())
        return tuple(artifact for artifact in every if _fits(artifact.coordinate.classifier, this_platform()))


def this_platform() -> str:
    """This machine in Maven's classifiers, for example `linux-x86_64`."""
    return f"{_SYSTEMS.get(platform.system(), '?')}-{_MACHINES.get(platform.machine().lower(), '?')}"


def _fits(classifier: str, here: str) -> bool:
    return classifier == here or not _NATIVE.fullmatch(classifier)


def load_lock() -> dict[str, Distribution]:
    """The distributions by name: `kafka` and `cassandra`.

    Raises:
        LocalStackError: the package is damaged.
    """
    source = files("eventstore.local") / LOCK_NAME
    try:
        return msgspec.json.decode(source.read_bytes(), type=dict[str, Distribution])
    except (OSError, msgspec.MsgspecError) as error:
        raise LocalStackError(
            f"{source}: expected the artifacts' lock file, got {error}; reinstall eventstore"
        ) from error


def write_lock(path: Path, distributions: Mapping[str, Distribution]) -> None:
    """Write a lock file, one artifact a line so that a change is easy to review."""
    path.write_text("{" + ",".join(_lines(distributions)) + "\n}\n")


def _lines(distributions: Mapping[str, Distribution]) -> Iterator[str]:
    for name, distribution in distributions.items():
        pins = (f'\n "{text}": {msgspec.json.encode(pin).decode()}' for text, pin in distribution.artifacts.items())
        yield f'\n"{name}": {{"version": "{distribution.version}", "artifacts": {{{",".join(pins)}\n}}}}'
