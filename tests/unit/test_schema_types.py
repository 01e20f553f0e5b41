"""Which JSON Schemas are checked by a type, and where types and JSON Schema would differ if nobody took care."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from eventstore.events import Reason, compile_schema
from eventstore.events.schema import RustSchema, TypedSchema
from eventstore.events.schema.pattern import translated
from eventstore.events.schema.typed import Document

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
SHIPPED = [*(ROOT / "schemas" / "events").glob("*.json"), ROOT / "eventstore" / "demo" / "data" / "page_edited.json"]


def typed(document: Document) -> TypedSchema:
    schema = compile_schema(document)
    assert isinstance(schema, TypedSchema), schema.untyped
    return schema


def of_a(part: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": part}} | more


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.name))
def test_the_schemas_we_ship_are_checked_by_a_type(path: Path) -> None:
    assert typed(orjson.loads(path.read_bytes())).untyped is None


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ({"type": "string", "minLength": 2, "maxLength": 2}, '"\U0001f600\U0001f600"'),
        ({"type": "string", "pattern": r"^[A-Z]{2}-\d+$"}, '"AB-12"'),
        ({"enum": ["a", 1, None]}, "1"),
        ({"type": ["string", "null"], "enum": ["a", 1, None]}, "null"),
        ({"const": "a"}, '"a"'),
        ({"type": "integer", "minimum": 0.5, "exclusiveMaximum": 3, "multipleOf": 2}, "2"),
        ({"type": "integer", "minimum": 0, "multipleOf": 2}, "2.0"),
        ({"type": "integer"}, "-1e300"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "0.5"),
        ({"type": "number"}, "123456789012345678901234567890"),
        ({"type": ["boolean", "number", "string", "null"]}, "true"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}, "[1, 2]"),
        ({"items": {"type": "integer"}}, "[1]"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, '{"x": 1, "y": 2}'),
        ({"type": "object", "properties": {"class": {}}, "required": ["class", "é"]}, r'{"class": {}, "\u00e9": 1}'),
        ({"properties": {"": {"type": "null"}}, "additionalProperties": False}, '{"": null}'),
        ({"$ref": "#/$defs/money"}, '{"amount": 1}'),
        ({"title": "t", "description": "d", "default": 1, "examples": [1], "format": "email"}, '"not one"'),
        (True, "[{}]"),
    ],
)
def test_what_the_type_takes_is_asked_of_nobody_else(part: Any, value: str) -> None:
    money = {"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}
    schema = typed(of_a(part, **{"$defs": {"money": money}}))
    schema.decode(b'{"a": %b}' % value.encode())


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (False, "the document: false"),
        ({"minProperties": 1}, "the document: minProperties"),
        (of_a({"type": "array", "uniqueItems": True}), "a: uniqueItems"),
        (of_a({"items": {"oneOf": [{}]}}), "a.items: oneOf"),
        (of_a({"type": "string", "pattern": "(a|b)+"}), r"a: the pattern (a|b)+"),
        (of_a({"type": ["string", "array"], "pattern": "^a$"}), "a: a pattern beside arrays or objects"),
        (of_a({"minLength": 1, "minimum": 1}), "a: no type, but keywords of several"),
        (of_a({"const": True}), "a: the value True"),
        (of_a({"enum": [1.5]}), "a: the value 1.5"),
        (of_a({"enum": ["a"], "const": "a"}), "a: const beside enum"),
        (of_a({"enum": ["a"], "type": "integer"}), "a: no value is left"),
        (of_a({"type": "number", "multipleOf": 0.01}), "a: multiples of a number"),
        (of_a({"type": "integer", "multipleOf": 0.5}), "a: multiples of 0.5"),
        (of_a({"type": "number", "minimum": 0, "exclusiveMinimum": 0}), "a: two bounds on one side"),
        (of_a({"type": "integer", "maximum": 2**53}), "a: maximum beyond 2^53"),
        (of_a({}, required=["b"], additionalProperties=False), "the document: b is required and not allowed"),
        (of_a({}, additionalProperties={"type": "null"}), "the document: additionalProperties beside other keywords"),
        (of_a({"$ref": "#/$defs/b", "type": "null"}, **{"$defs": {"b": {}}}), "a: $ref beside other keywords"),
        (of_a({"$ref": "#"}), "a: the reference #"),
        (of_a({"$ref": "#/properties/b"}, properties={"a": {"$ref": "#/properties/b"}, "b": {}}), "a: the reference #/properties/b"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "#/$defs/a.items: #/$defs/a within itself"),
        ({"$defs": {"a": {"$id": "https://example.org/a"}}}, "#/$defs/a: $id"),
        (of_a({"type": "string", "minLength": 10**30}), "the document: `min_length` is out of range"),
        ({"properties": {'a"b': {}}}, "the document: Renamed field names must not contain"),
    ],
)  # fmt: skip
def test_a_document_that_says_more_than_a_type_can_is_judged_by_all_of_json_schema(
    document: Document, reason: str
) -> None:
    schema = compile_schema(document)
    assert isinstance(schema, RustSchema)
    assert str(schema.untyped).startswith(reason)


def test_a_document_as_deep_as_json_schema_takes_it_can_be_a_type() -> None:
    document: dict[str, Any] = {}
    for _ in range(120):
        document = {"properties": {"a": document}}
    typed(document).decode(b'{"a": {"a": {}}}')


INTEGER = of_a({"type": "integer"})


@pytest.mark.parametrize(
    ("document", "properties", "expected"),
    [
        (INTEGER, b'{"a": 1.0}', None),
        (INTEGER, b'{"a": 1e2}', None),
        (INTEGER, b'{"a": 1.5}', Reason.SCHEMA),
        (INTEGER, b'{"a": true}', Reason.SCHEMA),
        (INTEGER, b'{"a": 1e999}', None),
        (INTEGER, b'{"a": %b}' % (b"9" * 5_000), None),
        (INTEGER, b'{"a": "x", "a": 1}', None),
        (INTEGER, b'{"a": 1, "a": "x"}', Reason.SCHEMA),
        (INTEGER, b"[]", Reason.SCHEMA),
        ({"properties": {"a": {}}}, b"[]", None),
        (of_a({"minLength": 3}), b'{"a": 5}', None),
        (of_a({"minLength": 3}), b'{"a": "ab"}', Reason.SCHEMA),
        (of_a({"type": "string", "maxLength": 1}), '{"a": "\U0001f600"}'.encode(), None),
        (of_a({"type": "string", "maxLength": 1}), rb'{"a": "\ud83d\ude00"}', None),
        (of_a({"type": "string", "maxLength": 1}), '{"a": "a\u0308"}'.encode(), Reason.SCHEMA),
        (of_a({"type": "string", "pattern": "^a$"}), rb'{"a": "a\n"}', Reason.SCHEMA),
        (of_a({"type": "string", "pattern": r"^\d$"}), '{"a": "٣"}'.encode(), Reason.SCHEMA),
        (of_a({"enum": [1]}), b'{"a": 1.0}', None),
        (of_a({"enum": [1]}), b'{"a": true}', Reason.SCHEMA),
        (of_a({"type": "number", "maximum": 0}), b'{"a": -1e999}', None),
        (of_a({"type": "number", "maximum": 0}), b'{"a": 1e999}', Reason.SCHEMA),
        (of_a({"type": "integer", "multipleOf": 3}), b'{"a": 3541774862152233910272}', Reason.SCHEMA),  # 3 * 2^70
        (of_a({"type": "object", "required": ["x"]}), b'{"a": {"x": 1}, "a": {}}', Reason.SCHEMA),
        (of_a({}), b'{"other": 1e999, "a": "1e999"}', None),
        (of_a({}), b'{"other": -%b}' % (b"9" * 400), None),
    ],
)
def test_where_types_and_json_schema_differ_json_schema_is_right(
    document: Document, properties: bytes, expected: Reason | None
) -> None:
    schema = typed(document)
    verdict = schema.check(properties)
    assert (verdict.reason if verdict else None) is expected
    assert schema.full.check(properties) == verdict


@pytest.mark.parametrize(
    "properties",
    [b"", b"{", b'{"b": 01e999}', b'{"b": 1e999, "c": tru}', rb'{"b": 1e999, "c": "\ud800"}', b'{"b": NaN}', b'{"b": "1e999}'],
)  # fmt: skip
def test_what_is_not_json_is_malformed_whichever_way_it_is_checked(properties: bytes) -> None:
    schema = typed({"type": "object"})
    verdict = schema.check(properties)
    assert verdict is not None
    assert verdict.reason is Reason.MALFORMED
    assert schema.full.check(properties) == verdict


@pytest.mark.parametrize(
    "pattern",
    ["a", "^(a|b)$", "^(a+)+$", "^a*a$", "^a*b?a$", r"^\s$", r"^[^\d]$", "^[a&&b]$", "^[[:alpha:]]$", "^[b-a-c]$", "^é$",
     r"^\bx", r"^(?=a)", "^a+?$", "^a{,2}$", "^[]$", "^.+@.+$", r"^\p{L}$", "^$a"],
)  # fmt: skip
def test_a_pattern_that_other_dialects_or_backtracking_could_change_is_not_translated(pattern: str) -> None:
    assert translated(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "matches", "differs"),
    [
        ("^[A-Z]{3}$", "EUR", "EUR\n"),
        (r"^\d{4}-\d{2}-\d{2}", "2026-09-20T10", "２０２６-09-20"),
        (r"^https?://[^/]+/?$", "https://example.org/", "https//example.org"),
        ("^[a-z0-9-]+$", "a-1", "a_1"),
        (r"^\$[\w.-]*$", "$a.b-c", "$é"),
        ("^.{2}$", "äö", "a\n"),
        ("^", "", None),
        ("^$", "", "a"),
    ],
)
def test_a_chain_of_character_sets_is_translated(pattern: str, matches: str, differs: str | None) -> None:
    schema = typed(of_a({"type": "string", "pattern": pattern}))
    schema.decode(orjson.dumps({"a": matches}))
    if differs is not None:
        assert schema.check(orjson.dumps({"a": differs})) is not None
