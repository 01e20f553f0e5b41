"""Everything that can go wrong and that somebody has to act on.

::

    EventstoreError
     ├── ConfigurationError          the settings or a file they name cannot be used        exit 2
     │    └── RegistryError          the tenant registry is invalid; carries every problem  exit 2
     ├── QueryError                  a question about a timeline that cannot be answered        exit 2
     │    ├── UnknownTenantError     the registry has no such tenant
     │    └── CursorError            not a cursor, or one of another question
     ├── RefusedError                would lose data or overrule somebody; nothing was done exit 3
     ├── StoreError                  a CQL cluster
     │    ├── TransientStoreError    overloaded, timed out, gone: the same write may succeed later
     │    │    └── CircuitOpenError  nobody waits for this cluster now
     │    └── PermanentStoreError    schema mismatch, access refused: retrying cannot help
     ├── KafkaError                  a Kafka cluster
     │    ├── TransientKafkaError    gone or busy: the same call may succeed later
     │    └── PermanentKafkaError    unknown topic, access refused: retrying cannot help
     ├── InputError                  a file given to a command cannot be read to its end
     └── LocalStackError             the embedded servers could not be fetched, started or stopped

A record that breaks a rule is not an error but a value: `eventstore.events.Rejected`.
Every message is one line: the thing, what was expected, what came, and the mend.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a command's exit code tells a script."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3


class EventstoreError(Exception):
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class ConfigurationError(EventstoreError):
    exit_code = ExitCode.USAGE


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a document: where (`tiers.t30.retention`), what was expected, what came."""

    path: str
    expected: str
    line: int | None = None

    def __str__(self) -> str:
        where = f" (line {self.line})" if self.line else ""
        return f"{self.path}{where}: {self.expected}"


class RegistryError(ConfigurationError):
    """All faults of one registry document at once."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(f"{source}: {count} problem{'s' if count != 1 else ''}: " + "; ".join(map(str, self.problems)))


class QueryError(EventstoreError):
    exit_code = ExitCode.USAGE


class UnknownTenantError(QueryError):
    pass


class CursorError(QueryError):
    pass


class RefusedError(EventstoreError):
    exit_code = ExitCode.REFUSED


class StoreError(EventstoreError):
    pass


class TransientStoreError(StoreError):
    pass


class CircuitOpenError(TransientStoreError):
    pass


class PermanentStoreError(StoreError):
    pass


class KafkaError(EventstoreError):
    pass


class TransientKafkaError(KafkaError):
    pass


class PermanentKafkaError(KafkaError):
    pass


class InputError(EventstoreError):
    pass


class LocalStackError(EventstoreError):
    pass
