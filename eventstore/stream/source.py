"""Records out of files: JSON lines or one JSON array, plain, gzip or zstd, in bounded memory.

What a file is, is told by its first bytes, never by its name.
"""

import gzip
import io
import itertools
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol

import zstandard

from eventstore.errors import InputError

CHUNK_BYTES: Final = 2**18
MAX_RECORD_BYTES: Final = 16 * 2**20
"""Longest record that is looked at: foreign records may hold far more than what becomes the event."""
STDIN: Final = Path("-")

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_BOM: Final = b"\xef\xbb\xbf"
_TEXT: Final = rb'(?:"(?:[^"\\]++|\\.)*+"|[^][{}",]++)*+'
_TO_MARK: Final = re.compile(_TEXT + rb'([][{},"])', re.DOTALL)
"""Up to the next bracket or comma outside strings; up to a quote if the string it opens has not been read to its end."""
_TO_BRACKET: Final = re.compile(_TEXT.replace(b",", b"") + rb'([][{}"])', re.DOTALL)
"""The same inside an element, where commas say nothing."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Record(NamedTuple):
    position: int
    """Line of the file, or element of its array, from 1."""
    value: bytes


def records(path: Path, progress: Callable[[int], None] = lambda _: None) -> Iterator[Record]:
    """The records of a file, `-` for standard input. Blank lines are none; what cannot be told apart is one record.

    `progress` hears how many bytes of the file have been read, before decompression.

    Raises:
        InputError: the file cannot be opened, its compressed data are damaged, a record is too long.
    """
    with _faults(path), opened(path) as file:
        chunks = _chunks(_decompressed(file), lambda: progress(file.tell() if file.seekable() else 0))
        yield from split(chunks, str(path))


def split(chunks: Iterator[bytes], name: str) -> Iterator[Record]:
    """The records of a text that comes in chunks: a JSON array if its first character is `[`, else lines.

    Raises:
        InputError: a record is too long.
    """
    head = next(chunks, b"").removeprefix(_BOM)
    array = head.lstrip().startswith(b"[")
    return (_elements if array else _lines)(itertools.chain((head,), chunks), name)


def _lines(chunks: Iterator[bytes], name: str) -> Iterator[Record]:
    number, rest = 0, b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            if text := line.strip():
                yield Record(number, text)
        _check_length(rest, name, number + 1)
    if text := rest.strip():
        yield Record(number + 1, text)


def _elements(chunks: Iterator[bytes], name: str) -> Iterator[Record]:
    number = depth = start = scan = 0
    buffer = b""
    for chunk in chunks:
        buffer, scan, start = buffer[start:] + chunk, scan - start, 0
        while (match := (_TO_BRACKET if depth > 1 else _TO_MARK).match(buffer, scan)) and (mark := match[1]) != b'"':
            scan = match.end()
            if mark in b"[{":
                depth += 1
                start = scan if depth == 1 else start
            elif depth > 1:
                depth -= mark in b"]}"
            else:
                element = buffer[start : match.start(1)].strip()
                if element or number or mark == b",":  # [] holds nothing
                    number += 1
                    yield Record(number, element)
                start = scan
                if mark in b"]}":
                    return _expect_end(itertools.chain((buffer[scan:],), chunks), name, number)
        _check_length(memoryview(buffer)[start:], name, number + 1)
    raise InputError(f"{name}: expected `]` after {number} records, got the end of the input; is the file cut off?")


def _expect_end(chunks: Iterator[bytes], name: str, number: int) -> None:
    if any(chunk.strip() for chunk in chunks):
        raise InputError(f"{name}: expected the end of the input after an array of {number} records, got more text")


def _check_length(text: bytes | memoryview, name: str, number: int) -> None:
    if len(text) > MAX_RECORD_BYTES:
        raise InputError(f"{name}: expected records of at most {MAX_RECORD_BYTES} bytes, record {number} is longer")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file, or standard input, which stays open."""
    if path == STDIN:
        yield sys.stdin.buffer
    else:
        with path.open("rb") as file:
            yield file


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise InputError(f"{path}: expected a readable file, plain, gzip or zstd: {error}") from error


def _decompressed(file: BinaryIO) -> _Readable:
    magic = file.peek(len(_ZSTD)) if isinstance(file, io.BufferedReader) else b""
    if magic.startswith(_GZIP):
        return gzip.open(file)
    if magic.startswith(_ZSTD):
        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
    return file


def _chunks(file: _Readable, after_each: Callable[[], None]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
        after_each()
