import pytest

from eventstore.stream.diverts import divert
from tests.records import message

pytestmark = pytest.mark.unit


def test_a_diverted_record_is_as_it_was_and_says_where_it_first_stood() -> None:
    made = divert("events.retry.c30", message(7, b"{}", headers=[("traceparent", b"00-1")]))
    assert (made.topic, made.key, made.value) == ("events.retry.c30", b"shop:u1", b"{}")
    assert made.headers == [("traceparent", b"00-1"), ("es-origin", b"events/3/7")]


def test_a_record_that_has_an_origin_keeps_it() -> None:
    made = divert("events.retry.c30", message(7, headers=[("es-origin", b"events/0/1")]))
    assert made.headers == [("es-origin", b"events/0/1")]
