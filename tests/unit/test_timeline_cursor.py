from dataclasses import replace

import pytest

from eventstore.errors import CursorError
from eventstore.events.stored import Position
from eventstore.timeline import TimelineQuery
from eventstore.timeline.cursor import Cursor, decode, encode
from tests.builders import NOW_MS, eid

pytestmark = pytest.mark.unit

QUERY = TimelineQuery("shop", "u1", event="product_viewed")
CURSOR = Cursor(NOW_MS - 1_000, Position(NOW_MS, eid(3)))


def test_a_cursor_gives_back_start_and_position() -> None:
    assert decode(encode(CURSOR, QUERY), QUERY) == CURSOR
    assert decode(encode(replace(CURSOR, start_ms=None), QUERY), QUERY).start_ms is None


def test_a_cursor_needs_no_escaping_in_a_url() -> None:
    assert set(encode(CURSOR, QUERY)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize(
    "other",
    [
        replace(QUERY, tenant="shop2"),
        replace(QUERY, uid="u2"),
        replace(QUERY, event="added_to_cart"),
        replace(QUERY, event=None),
        replace(QUERY, tenant="shopu", uid="1"),
    ],
)
def test_a_cursor_of_another_question_is_refused(other: TimelineQuery) -> None:
    with pytest.raises(CursorError, match="same tenant, user and filter"):
        decode(encode(CURSOR, QUERY), other)


def test_every_change_of_one_character_is_refused() -> None:
    text = encode(CURSOR, QUERY)
    for index, was in enumerate(text):
        for changed in "Ab-" if was != "b" else "Ac-":
            if changed != was:
                with pytest.raises(CursorError, match="start at the first page"):
                    decode(text[:index] + changed + text[index + 1 :], QUERY)


@pytest.mark.parametrize("text", ["", "x", "ä", "!!!!", "AAAA" * 100, "\udcff"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(CursorError, match="expected one that this version gave out"):
        decode(text, QUERY)


def test_padding_and_stray_characters_are_refused() -> None:
    text = encode(CURSOR, QUERY)
    for stray in (text + "=", text + "\n", " " + text, text + "!"):
        with pytest.raises(CursorError):
            decode(stray, QUERY)
