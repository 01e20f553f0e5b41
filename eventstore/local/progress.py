"""How a long step of the embedded stack tells what it is doing."""

from typing import Protocol


class Progress(Protocol):
    """Called from several threads."""

    def fetching(self, files: int, size: int) -> None:
        """A download of so many files and bytes begins."""

    def received(self, size: int) -> None:
        """So many bytes more have come; what a cut download had already counts once it is resumed."""

    def server(self, name: str, state: str) -> None:
        """A server reached a state, for example `starting` or `answers`."""


class Silent:
    def fetching(self, files: int, size: int) -> None:
        pass

    def received(self, size: int) -> None:
        pass

    def server(self, name: str, state: str) -> None:
        pass


SILENT = Silent()
