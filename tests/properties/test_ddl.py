"""Options written as CQL are read back as they were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.store.ddl import Value, parse_keyspace_options, parse_table, render_options

pytestmark = pytest.mark.properties

names = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True).filter(
    lambda name: name not in {"clustering", "compact", "and"}
)
scalars = st.text(max_size=20) | st.integers(-(2**63), 2**63) | st.booleans() | st.floats(0, 1e6)
values = st.recursive(
    scalars, lambda inner: st.dictionaries(st.text(max_size=8), inner, max_size=3) | st.lists(inner, max_size=3)
)


@given(st.dictionaries(names, values, min_size=1, max_size=5))
def test_rendered_options_are_read_back(options: dict[str, Value]) -> None:
    assert parse_keyspace_options(f"CREATE KEYSPACE ks WITH {render_options(options)};") == options


@given(st.text(max_size=60))
def test_any_text_is_a_table_or_a_value_error(text: str) -> None:
    try:
        parse_table(f"CREATE TABLE t ({text}")
    except ValueError as error:
        assert "expected" in str(error)  # noqa: PT017 — most texts raise, a few are tables
