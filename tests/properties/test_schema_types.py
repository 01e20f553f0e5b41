"""A schema compiled to a type comes to the verdicts of the whole of JSON Schema: for any document and any bytes."""

import json
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from eventstore.events import compile_schema
from eventstore.events.schema import TypedSchema
from eventstore.events.schema.pattern import translated
from eventstore.events.validate import MAX_DEPTH, nesting

pytestmark = pytest.mark.properties

Document = dict[str, Any]

INSTANCES = 40
"""For each document."""

NAMES = ("a", "b", "class", "naïve", "", "a b", "__init__", "p0")
names = st.sampled_from(NAMES)
bounds = st.sampled_from([0, 1, -1, 3, 10, 0.5, -2.5, 3.0, 2**53 - 1, 1e15])
lengths = st.integers(0, 3)
patterns = st.sampled_from(
    ["^[A-Z]{3}$", "^a+$", r"^\d{2,3}-\w*$", "^[^ab]+$", "^.+$", "^-?[0-9]+$", "^[a-c-]?x", r"^[\w.]+@\w+$", "b", "^a*ab$"]
)  # fmt: skip
enums = st.lists(st.sampled_from(["a", "", "ä", 0, 1, -7, None]), min_size=1, max_size=4, unique=True)
odd_enums = st.sampled_from([[True, 1], [1.5], [1, 1.5], [[], "a"]])
KINDS = ("object", "array", "string", "number", "integer", "boolean", "null")
WORDS_OF = {"boolean": ("true", "false"), "null": ("null",)}


def rules(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[Document]:
    return st.fixed_dictionaries({}, optional=keywords)


strings = rules(minLength=lengths, maxLength=lengths, pattern=patterns)
numbers = st.builds(
    lambda low, high, step: low | high | step,
    rules(minimum=bounds) | rules(exclusiveMinimum=bounds),
    rules(maximum=bounds) | rules(exclusiveMaximum=bounds),
    st.sampled_from([{}, {}, {}, {"multipleOf": 2}, {"multipleOf": 3.0}, {"multipleOf": 0.5}]),
)
notes = rules(title=st.just("t"), default=st.just(1), format=st.just("email"), description=st.just("d"))


@st.composite
def parts(draw: st.DrawFn, depth: int = 2) -> Document | bool:
    if (odd := draw(st.integers(0, 24))) == 0:
        return draw(st.booleans())
    if odd == 1:
        return {"$ref": draw(st.sampled_from(["#/$defs/a", "#/$defs/b"]))}
    if odd <= 4:
        return draw(st.sampled_from([{}, {"type": "string"}, {"type": "integer"}])) | {
            "enum": draw(enums if odd < 4 else odd_enums)
        }
    if odd == 5:
        return {"const": draw(enums)[0]}
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True))
    part: Document = {} if odd == 6 else {"type": kinds if len(kinds) > 1 else kinds[0]}
    if "string" in kinds:
        part |= draw(strings)
    if {"number", "integer"} & set(kinds):
        part |= draw(numbers)
    if "array" in kinds and depth:
        part |= draw(rules(items=parts(depth - 1), minItems=lengths, maxItems=lengths))
    if "object" in kinds and depth:
        part |= draw(objects(depth - 1))
    return part | draw(notes)


@st.composite
def objects(draw: st.DrawFn, depth: int = 2) -> Document:
    return draw(
        rules(
            properties=st.dictionaries(names, parts(depth), max_size=4),
            required=st.lists(names, max_size=2, unique=True),
            additionalProperties=st.sampled_from([False, True, {}]) | parts(0),
        )
    )


@st.composite
def documents(draw: st.DrawFn) -> Document:
    kind: Document = draw(st.sampled_from([{"type": "object"}, {}]))
    return kind | draw(objects()) | {"$defs": {"a": draw(parts(1)), "b": {"type": "integer", "minimum": 0}}}


NUMBERS = (
    "-0", "-0.0", "1.0", "3.0", "1e0", "1E+2", "1e400", "-1e999", "1e-400", "9" * 400, "-" + "9" * 5000, "1" + "0" * 309,
    "9007199254740993", "9007199254740992", "9007199254740991", "9007199254740991.5", "18446744073709551616",
    "9223372036854775808", "-9223372036854775809", "0.49999999999999999999999999999999", "2.50000000000000000000001",
    "1.7976931348623157e308", "1.7976931348623158079e308", "1.7976931348623159e308", "01", "1.", ".5", "+1", "NaN", "1e", "0x1"
)  # fmt: skip
STRINGS = (r'"\ud800"', r'"\ud83d\ude00"', r'"\ude00\ud83d"', r'"\u0041BC"', '"\x01"', r'"\x"', '"1e999"')
WORDS = ("ABC", "aab", "12-x", "-12", "a@b", "x", "a", "ä")
LETTERS = "abcxABC019-_.@ \n\r\u2028ä\U0001f600٣\0"
JUNK = (b"e999", b"0", b'"', b"\\", b"}", b",", b"\xff", b"\xed\xa0\x80", b" ", b"")


@dataclass(frozen=True)
class Writer:
    """Writes JSON as text, with everything that a parser must get right: some of it broken."""

    random: Random
    document: Document

    def number(self) -> str:
        drawn = self.random.random()
        if drawn < 0.6:
            return str(self.random.randint(-3, 12))
        if drawn < 0.7:
            return str(self.random.randint(-(2**70), 2**70))
        return repr(self.random.uniform(-4, 12)) if drawn < 0.8 else self.random.choice(NUMBERS)

    def string(self) -> str:
        drawn = self.random.random()
        if drawn < 0.1:
            return self.random.choice(STRINGS)
        word = "".join(self.random.choices(LETTERS, k=self.random.randint(0, 5)))
        return json.dumps(self.random.choice(WORDS) if drawn < 0.5 else word, ensure_ascii=drawn < 0.7)

    def anything(self, depth: int = 2) -> str:
        kind = self.random.choice(KINDS if depth else KINDS[2:])
        if kind == "object":
            return joined(
                [(self.random.choice(NAMES), self.anything(depth - 1)) for _ in range(self.random.randint(0, 3))]
            )
        if kind == "array":
            return "[" + ", ".join(self.anything(depth - 1) for _ in range(self.random.randint(0, 3))) + "]"
        return self.scalar(kind)

    def scalar(self, kind: str) -> str:
        if kind == "string":
            return self.string()
        return self.number() if kind in {"number", "integer"} else self.random.choice(WORDS_OF[kind])

    def kept(self, part: Any) -> str:
        """What mostly keeps this part of the document, or comes close."""
        if self.random.random() < 0.05 or not isinstance(part, dict):
            return self.anything()
        if "$ref" in part:
            return self.kept(self.document["$defs"][part["$ref"][-1]] if self.random.random() < 0.9 else True)
        if "enum" in part or "const" in part:
            return json.dumps(self.random.choice(part.get("enum", [part.get("const")])))
        kinds = part.get("type", "object" if {"properties", "required"} & part.keys() else list(KINDS))
        kind = kinds if isinstance(kinds, str) else self.random.choice(kinds)
        if kind == "object":
            return self.object(part)
        if kind == "array":
            return "[" + ",".join(self.kept(part.get("items", True)) for _ in range(self.random.randint(0, 3))) + "]"
        return self.scalar(kind)

    def object(self, part: Document) -> str:
        properties, required = part.get("properties", {}), part.get("required", [])
        others = part.get("additionalProperties", True)
        names = [name for name in properties if name in required or self.random.random() < 0.8]
        names += [name for name in required if name not in properties]
        members = [(name, self.kept(properties.get(name, True))) for name in names]
        while self.random.random() < 0.3:
            members.append((self.random.choice((*NAMES, "x" * 40)), self.kept(others)))
        return joined(members)

    def instance(self) -> bytes:
        """Kept, something else altogether, or kept and then damaged."""
        text = self.object(self.document) if self.random.random() < 0.9 else self.anything()
        raw = text.encode()
        if self.random.random() < 0.2:
            at = self.random.randint(0, len(raw))
            raw = raw[:at] + self.random.choice(JUNK) + raw[at + self.random.randint(0, 2) :]
        return raw


def joined(members: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in members) + "}"


def is_let_through(raw: bytes) -> bool:
    """Whether the limits that come before the schema are kept."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return nesting(raw) <= MAX_DEPTH


@given(documents(), st.integers(0, 2**32))
@settings(max_examples=100)
def test_a_type_comes_to_the_verdict_of_all_of_json_schema(document: Document, seed: int) -> None:
    schema = compile_schema(document)
    assume(isinstance(schema, TypedSchema))
    assert isinstance(schema, TypedSchema)
    writer = Writer(Random(seed), document)
    for raw in filter(is_let_through, (writer.instance() for _ in range(INSTANCES))):
        verdict = schema.full.check(raw)
        event("kept" if verdict is None else verdict.reason.value)
        assert schema.check(raw) == verdict, raw


pieces = st.sampled_from(
    ["a", "b", "-", "@", " ", ".", r"\.", r"\d", r"\w", "[a-c]", "[^a]", "[ab-]", r"[\d_]", "[^0-9-]", r"[-\w]", "[+.]", r"\$", "é", "(a)", "|"]
)  # fmt: skip
repeats = st.sampled_from(["", "", "", "?", "*", "+", "{2}", "{1,2}", "{0,1}", "{2,}", "+?", "{,2}"])
expressions = st.builds(
    lambda start, middle, end: start + "".join(piece + repeat for piece, repeat in middle) + end,
    st.sampled_from(["^", "^", "^", ""]),
    st.lists(st.tuples(pieces, repeats), max_size=4),
    st.sampled_from(["$", ""]),
)


@given(expressions, st.lists(st.text(alphabet="abcd-@ .$_019+\n\r\u2028é٣", max_size=6), min_size=5, max_size=10))
@settings(max_examples=150)
def test_a_translated_pattern_matches_what_the_pattern_matches(pattern: str, subjects: list[str]) -> None:
    assume(translated(pattern) is not None)
    schema = compile_schema({"properties": {"a": {"type": "string", "pattern": pattern}}})
    assert isinstance(schema, TypedSchema)
    for subject in subjects:
        raw = json.dumps({"a": subject}).encode()
        verdict = schema.full.check(raw)
        event("matches" if verdict is None else "differs")
        assert schema.check(raw) == verdict
