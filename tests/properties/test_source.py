"""A file's records are the same however its bytes come in."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import InputError
from eventstore.stream.source import Record, split

pytestmark = pytest.mark.properties

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
objects = st.lists(st.dictionaries(st.text(max_size=5), documents, max_size=3), max_size=6)
sizes = st.integers(1, 50)


def cut(text: bytes, size: int) -> Iterator[bytes]:
    return (text[at : at + size] for at in range(0, len(text), size))


@given(objects, sizes, st.sampled_from([None, 1]), st.booleans())
def test_an_array_holds_what_was_put_into_it(rows: list[Any], size: int, indent: int | None, ascii_only: bool) -> None:  # noqa: FBT001 — drawn
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    assert [json.loads(record.value) for record in split(cut(text, size), "f")] == rows


@given(objects, sizes)
def test_lines_hold_what_was_put_into_them(rows: list[Any], size: int) -> None:
    text = "\n".join(json.dumps(row) for row in rows).encode()
    assert [json.loads(record.value) for record in split(cut(text, size), "f")] == rows


def outcome(text: bytes, size: int) -> tuple[list[Record], str]:
    found: list[Record] = []
    try:
        found.extend(split(cut(text, size), "f"))
    except InputError as error:
        return found, str(error)
    return found, ""


@given(st.binary() | st.text('[]{},"\\ \n1a').map(str.encode), sizes)
def test_whatever_the_bytes_records_or_one_error_come_out(text: bytes, size: int) -> None:
    text = b"[" + text
    assert outcome(text, size) == outcome(text, len(text))
