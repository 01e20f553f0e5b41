"""What a replay does with one record: the rule book's verdict, for the records of its scope. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from eventstore.events.erasure import Erasures
from eventstore.ingest.admission import Admission, Verdict
from eventstore.ingest.express import first_place
from eventstore.replay.scope import Selection
from eventstore.stream.chunk import Record


class Skipped(NamedTuple):
    """Outside the scope."""


Judgement = Verdict | Skipped
Judge = Callable[[Record], Judgement]


@dataclass(frozen=True, slots=True)
class ScopedBook:
    """A `Judge` by the book, so that whoever checks the express way does not use it."""

    admission: Admission
    selection: Selection

    def __call__(self, record: Record) -> Judgement:
        key, value = record.key(), record.value()
        if not self.selection.picks(key, value):
            return Skipped()
        return self.admission.verdict(value, key, partial(first_place, record))

    def but_for_erasures(self, record: Record) -> Judgement:
        """The verdict if nobody had been erased: which row must not be there."""
        return replace(self, admission=replace(self.admission, erasures=Erasures()))(record)
