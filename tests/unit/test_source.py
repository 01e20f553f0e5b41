import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from eventstore.errors import InputError
from eventstore.stream import source
from eventstore.stream.source import Record, records, split

pytestmark = pytest.mark.unit

ROWS = [{"n": n, "text": '[{"a\\b",é]}\n' * (n % 3), "list": [[], {}, [1, [2]]]} for n in range(50)]


def cut(text: bytes, size: int) -> Iterator[bytes]:
    return (text[at : at + size] for at in range(0, len(text), size))


def values(found: Iterator[Record]) -> list[object]:
    return [json.loads(record.value) for record in found]


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_an_array_is_the_same_however_it_is_cut(size: int) -> None:
    for text in (json.dumps(ROWS), json.dumps(ROWS, indent=2), json.dumps(ROWS, ensure_ascii=False)):
        found = list(split(cut(text.encode(), size), "f"))
        assert [json.loads(record.value) for record in found] == ROWS
        assert [record.position for record in found] == list(range(1, len(ROWS) + 1))


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_lines_are_the_same_however_they_are_cut(size: int) -> None:
    text = "\r\n".join(json.dumps(row) for row in ROWS)
    assert values(split(cut(text.encode(), size), "f")) == ROWS


def test_blank_lines_are_no_records_but_count_as_lines() -> None:
    assert list(split(iter([b"\n{}\n \n[]\n"]), "f")) == [Record(2, b"{}"), Record(4, b"[]")]


def test_a_byte_order_mark_is_no_part_of_the_first_record() -> None:
    assert list(split(iter([b"\xef\xbb\xbf{}"]), "f")) == [Record(1, b"{}")]


@pytest.mark.parametrize("text", [b"", b"\n \n", b"[]", b" [ ] \n"])
def test_an_empty_file_has_no_records(text: bytes) -> None:
    assert list(split(iter([text]), "f")) == []


def test_an_element_left_out_is_a_record_to_be_refused() -> None:
    assert list(split(iter([b"[1,,2]"]), "f")) == [Record(1, b"1"), Record(2, b""), Record(3, b"2")]


@pytest.mark.parametrize("text", [b"[1,2", b'[1,"2]', b"[1,{]", b"[1,"])
def test_an_array_that_is_cut_off_is_an_error_after_what_came_before(text: bytes) -> None:
    found = split(iter([text]), "f.json")
    assert next(found) == Record(1, b"1")
    with pytest.raises(InputError, match=r"f\.json: expected `\]`"):
        list(found)


@pytest.mark.parametrize("chunks", [[b"[1] 2"], [b"[1]", b"\n", b"[2]"]])
def test_text_after_an_array_is_an_error(chunks: list[bytes]) -> None:
    with pytest.raises(InputError, match="expected the end of the input after an array of 1"):
        list(split(iter(chunks), "f"))


@pytest.mark.parametrize("start", [b"", b"["])
def test_a_record_without_end_is_an_error_not_a_full_memory(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_RECORD_BYTES", 1_000)
    endless = (b'"' + b"x" * 99 if n == 0 else b"x" * 100 for n in range(10**9))
    with pytest.raises(InputError, match="at most 1000 bytes, record 1 is longer"):
        list(split((start + chunk if start and n == 0 else chunk for n, chunk in enumerate(endless)), "f"))


LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


@pytest.mark.parametrize(
    "packed",
    [
        LINES,
        gzip.compress(LINES, mtime=0),
        gzip.compress(LINES[:100], mtime=0) + gzip.compress(LINES[100:], mtime=0),
        zstandard.compress(LINES),
    ],
    ids=["plain", "gzip", "two gzip members", "zstd"],
)
def test_compression_is_told_by_the_content_not_by_the_name(packed: bytes, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(packed)
    read: list[int] = []
    assert values(records(file, read.append)) == ROWS
    assert read[-1] == len(packed)


@pytest.mark.parametrize(
    "packed", [gzip.compress(LINES, mtime=0)[:-20], gzip.compress(LINES, mtime=0)[:40] + b"xxxxxxxxxxxxx"]
)
def test_damaged_compression_is_one_line_that_names_the_file(packed: bytes, tmp_path: Path) -> None:
    file = tmp_path / "rows.gz"
    file.write_bytes(packed)
    with pytest.raises(InputError, match=r"rows\.gz: expected a readable file"):
        list(records(file))


def test_a_file_that_is_not_there_is_one_line_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing-here"):
        list(records(tmp_path / "nothing-here"))
