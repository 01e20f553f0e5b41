"""The hot loops in C, where they have been built (`make accelerate`), else None.

What they must do is told by the Python beside each use, which does the same at a higher cost. `EVENTSTORE_PURE=1` in the
environment has them left alone: the first thing to try when a fault of theirs is suspected.
"""

import os
from importlib import import_module
from typing import Any, Final, Protocol, cast


class Accelerator(Protocol):
    """The functions of `_accelerator.c`, whose docstrings say more."""

    def take_plain(  # noqa: PLR0917 — a C function's
        self,
        keys: list[Any],
        values: list[Any],
        senders: dict[Any, Any],
        names: dict[str, bytes],
        check: Any,
        clock: tuple[int, int, int],
        limits: tuple[int, int],
        /,
    ) -> list[int]:
        """Group the cells of every record that is plainly sound; the positions of all others come back."""
        ...

    def wire(
        self,
        prepared: tuple[dict[bytes, tuple[bytes, bytes]], bytes],
        batches: list[list[bytes]],
        streams: list[int],
        /,
    ) -> bytes:
        """The frames of batches, each under its stream, one behind the other."""
        ...

    def acknowledged(self, buffer: bytes, /) -> tuple[list[int], int]:
        """The streams of the plain results that a buffer begins with, and where they end."""
        ...


def found() -> Accelerator | None:
    """The built loops; None where there are none, or the environment says to do without."""
    if os.environ.get("EVENTSTORE_PURE"):
        return None
    try:
        return cast(Accelerator, import_module("eventstore._accelerator"))
    except ImportError:
        return None


ACCELERATOR: Final = found()
