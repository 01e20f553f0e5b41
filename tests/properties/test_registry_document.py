"""Whatever somebody types, a registry document gives a Registry or RegistryError."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from eventstore.errors import RegistryError
from eventstore.tenancy import Registry, format_duration, parse_duration
from eventstore.tenancy.document import parse_registry

pytestmark = pytest.mark.properties

EXAMPLE = (Path(__file__).parents[2] / "schemas" / "tenants.example.yaml").read_bytes()
WORDS = [b"{", b"}", b"[", b"]", b": ", b"- ", b"\n", b"  ", b"&a ", b"*a", b"!!int ", b"'", b'"', b"#", b"|", b"<<: ",
         b"15d", b"null", b"clusters", b"tier", b"\t", b"\xff", b"\0", b"%", b"? ", b"---\n", b"..."]  # fmt: skip


def read(name: str) -> bytes:
    if "\0" in name:
        raise ValueError("embedded null byte")  # as open() does
    return b"{}" if name.endswith(".json") else b"not json"


def outcome(content: bytes) -> Registry | RegistryError:
    try:
        return parse_registry(content, read)
    except RegistryError as error:
        told = error
    assert told.problems
    assert all("\n" not in str(problem) for problem in told.problems)
    return told


@st.composite
def mutated_bytes(draw: st.DrawFn) -> bytes:
    content = EXAMPLE
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 30)))
        content = content[:start] + draw(st.sampled_from(WORDS) | st.binary(max_size=8)) + content[end:]
    return content


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.sampled_from(["t15", "15d", "es15", "vip"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in below for place in places(inner, (*path, key)))]


@st.composite
def mutated_structures(draw: st.DrawFn) -> Any:
    document = yaml.safe_load(EXAMPLE)
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from([place for place in places(document) if place]))
        target = document
        for key in parents:
            target = target[key]
        match draw(st.sampled_from(["replace", "remove", "rename"])):
            case "replace":
                target[last] = draw(json_like)
            case "remove":
                del target[last]
            case "rename" if isinstance(target, dict):
                target[draw(st.text(max_size=10))] = target.pop(last)
    return document


@given(mutated_bytes())
def test_a_document_with_typing_errors_is_a_registry_or_a_list_of_problems(content: bytes) -> None:
    outcome(content)


@example({"a\nb": 1, "clusters": {"c\nd": {}}, "tenants": {"t": {"tier": "x\ny"}}})
@given(mutated_structures())
def test_a_document_with_wrong_values_is_a_registry_or_a_list_of_problems(document: Any) -> None:
    outcome(yaml.safe_dump(document, allow_unicode=True).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_registry_or_a_list_of_problems(content: bytes) -> None:
    assert isinstance(outcome(content), RegistryError)


@given(mutated_structures())
def test_in_a_registry_every_name_leads_somewhere(document: Any) -> None:
    found = outcome(yaml.safe_dump(document, allow_unicode=True).encode())
    if isinstance(found, Registry):
        clusters = [tier.cluster.name for tier in found.tiers.values()]
        assert len(set(clusters)) == len(clusters), "one table, one retention"
        assert all(found.tiers[tenant.tier.name] is tenant.tier for tenant in found.tenants.values())
        assert all(found.clusters[tier.cluster.name] is tier.cluster for tier in found.tiers.values())
        assert all(":" not in name for name in found.tenants)


@given(st.integers(1, 10**8))
def test_a_duration_is_read_back_as_it_was_written(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
