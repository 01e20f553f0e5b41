"""Files into the event topic: read, prepare, publish, and account for every record."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from eventstore.errors import InputError
from eventstore.events import Rejected
from eventstore.events.outgoing import Outgoing, Preparation, unchecked
from eventstore.stream.producer import RecordProducer
from eventstore.stream.source import opened, records

MAX_SHOWN: Final = 10
"""Refused records remembered for a summary; `on_refused` hears of all of them."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A record of a file that was not published."""

    file: str
    position: int
    """Line, or element of the array, from 1."""
    rejected: Rejected
    record: bytes


@dataclass(slots=True)
class Load:
    """One run over some files. Its counts are true at any time, after an error too."""

    producer: RecordProducer
    prepare: Callable[[bytes, int], Outgoing | Rejected]
    """`Preparation(...).prepare`, or `as_it_is`."""
    on_refused: Callable[[Refused], None] = lambda _: None
    on_progress: Callable[[Path, int], None] = lambda _file, _bytes: None
    """Hears how many bytes of a file have been read, before decompression."""
    read: int = 0
    published: int = 0
    refused: int = 0
    first_refused: list[Refused] = field(default_factory=list)

    def run(self, files: Iterable[Path]) -> None:
        """Publish every record of the files; on return Kafka has confirmed them all.

        Raises:
            InputError: a file cannot be read to its end; what came before is published and confirmed.
            KafkaError: a record was not confirmed.
        """
        try:
            for file in files:
                self._file(file)
        finally:
            self.producer.confirm()

    def _file(self, file: Path) -> None:
        for position, record in records(file, partial(self.on_progress, file)):
            self.read += 1
            outgoing = self.prepare(record, position)
            if isinstance(outgoing, Rejected):
                self._refuse(Refused(str(file), position, outgoing, record))
            else:
                self.producer.publish(outgoing.key, outgoing.value)
                self.published += 1

    def _refuse(self, refused: Refused) -> None:
        self.refused += 1
        if len(self.first_refused) < MAX_SHOWN:
            self.first_refused.append(refused)
        self.on_refused(refused)


def as_it_is(record: bytes, _position: int) -> Outgoing:
    """Publish the record whatever is wrong with it."""
    return unchecked(record)


def newest_micros(
    files: Iterable[Path],
    preparation: Preparation,
    on_progress: Callable[[Path, int], None] = lambda _file, _bytes: None,
) -> int:
    """The newest event time in the files, in microseconds since the epoch.

    Raises:
        InputError: no record has an event time, or a file cannot be read to its end.
    """
    found = (record for file in files for record in records(file, partial(on_progress, file)))
    times = (preparation.event_micros(record.value) for record in found)
    newest = max((time for time in times if not isinstance(time, Rejected)), default=None)
    if newest is None:
        raise InputError("shifting times: expected at least one record with a readable time, found none")
    return newest


@contextmanager
def readable_twice(files: Iterable[Path]) -> Iterator[list[Path]]:
    """The files, with standard input and pipes copied to temporary files for as long as the context lasts."""
    with ExitStack() as copies:
        yield [file if file.is_file() else copies.enter_context(_copy(file)) for file in files]


@contextmanager
def _copy(pipe: Path) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix="eventstore-") as copy, opened(pipe) as source:
        shutil.copyfileobj(source, copy)
        copy.flush()
        yield Path(copy.name)
