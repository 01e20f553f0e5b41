"""The common part of JSON Schema as msgspec types.

A type may take less than its document, never more: what it refuses is judged by all of JSON Schema. So a part without a type
may become the type that its keywords are for, and 1.0, an integer to JSON Schema, need not be one to the type.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from types import GenericAlias
from typing import Any, Final

import msgspec

from eventstore.events.reject import Rejected
from eventstore.events.schema.rust import RustSchema
from eventstore.events.schema.scalars import (
    Place,
    UntypedError,
    of_integer,
    of_number,
    of_string,
    of_values,
    ruled,
)

Document = dict[str, Any] | bool

ANNOTATIONS: Final = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "format"}
)
ROOT_ONLY: Final = frozenset({"$schema", "$id", "$defs", "definitions"})
ASSERTIONS: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "string": frozenset({"minLength", "maxLength", "pattern"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
}
"""Keywords by the type of the values for which they hold."""
KNOWN: Final = frozenset({"type", "enum", "const"}).union(*ASSERTIONS.values())
PLAIN_REFERENCE: Final = re.compile(r"#/(\$defs|definitions)/[A-Za-z0-9_.-]+")
SCALARS: Final[Mapping[str, Callable[[Mapping[str, Any], Place], Any]]] = {
    "string": of_string,
    "integer": of_integer,
    "number": of_number,
    "boolean": lambda _part, _place: bool,
    "null": lambda _part, _place: None,
}


@dataclass(frozen=True, slots=True)
class TypedSchema:
    """A quick yes by a type; everything else is judged by all of JSON Schema."""

    decode: Callable[[bytes], object]
    full: RustSchema
    untyped: None = None

    def check(self, properties: bytes) -> Rejected | None:
        try:
            self.decode(properties)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return self.full.check(properties)
        return None


def typed_schema(document: Document, full: RustSchema) -> TypedSchema:
    """A checker that comes to the verdicts of `full`, which is one for the same valid document.

    Raises:
        UntypedError: the document says more than a type can.
    """
    try:
        return TypedSchema(msgspec.json.Decoder(_Types.of(document)).decode, full)
    except (TypeError, ValueError, OverflowError) as error:  # a property's name or a number that msgspec does not take
        raise UntypedError((), str(error)) from error


@dataclass(slots=True)
class _Types:
    """Types for the parts of one document."""

    definitions: Mapping[str, Document]
    """By the `$ref` that names them."""
    found: dict[str, Any] = field(default_factory=dict)
    """By `$ref`; itself while it is being made."""

    @classmethod
    def of(cls, document: Document) -> Any:
        if not isinstance(document, dict):
            return cls({}).of_part(document, ())
        definitions = {
            f"#/{key}/{name}": part for key in ("$defs", "definitions") for name, part in document.get(key, {}).items()
        }
        types = cls(definitions)
        for reference in definitions:  # unused ones too: an `$id` in one would change what references mean
            types.of_reference(reference, (reference,))
        return types.of_part({key: part for key, part in document.items() if key not in ROOT_ONLY}, ())

    def of_part(self, part: Document, place: Place) -> Any:
        if isinstance(part, bool):
            if not part:
                raise UntypedError(place, "false")
            return msgspec.Raw
        asserted = part.keys() - ANNOTATIONS
        if "$ref" in asserted:
            if len(asserted) > 1:
                raise UntypedError(place, "$ref beside other keywords")
            return self.of_reference(part["$ref"], place)
        if unknown := sorted(asserted - KNOWN):
            raise UntypedError(place, " beside ".join(unknown))
        kinds = _kinds(part, asserted, place)
        if asserted & {"enum", "const"}:
            if len(more := sorted(asserted - {"type"})) > 1:
                raise UntypedError(place, " beside ".join(more))
            return of_values(part["enum"] if "enum" in part else [part["const"]], kinds, place)
        return reduce(or_, (self.of_kind(kind, part, place) for kind in kinds)) if kinds else msgspec.Raw

    def of_reference(self, reference: str, place: Place) -> Any:
        if reference not in self.definitions or not PLAIN_REFERENCE.fullmatch(reference):
            raise UntypedError(place, f"the reference {reference}")
        if reference not in self.found:
            self.found[reference] = reference
            self.found[reference] = self.of_part(self.definitions[reference], (reference,))
        if self.found[reference] == reference:
            raise UntypedError(place, f"{reference} within itself")
        return self.found[reference]

    def of_kind(self, kind: str, part: dict[str, Any], place: Place) -> Any:
        if kind in SCALARS:
            return SCALARS[kind](part, place)
        if kind == "object":
            return self.of_object(part, place)
        items = self.of_part(part.get("items", True), (*place, "items"))
        return ruled(GenericAlias(list, (items,)), min_length=part.get("minItems"), max_length=part.get("maxItems"))

    def of_object(self, part: dict[str, Any], place: Place) -> Any:
        properties, required = part.get("properties", {}), part.get("required", [])
        others = part.get("additionalProperties", True)
        closed = others is False
        if not closed and (of := self.of_part(others, (*place, "additionalProperties"))) is not msgspec.Raw:
            if properties or required:
                raise UntypedError(place, "additionalProperties beside other keywords")
            return GenericAlias(dict, (str, of))
        undeclared = [name for name in required if name not in properties]
        if closed and undeclared:
            raise UntypedError(place, f"{undeclared[0]} is required and not allowed")
        return _struct(
            {name: self.of_part(properties.get(name, True), (*place, name)) for name in (*properties, *undeclared)},
            required=set(required),
            closed=closed,
        )


def _struct(types: Mapping[str, Any], *, required: set[str], closed: bool) -> type[msgspec.Struct]:
    """An object with these properties; their names need not be names in Python."""
    fields = [
        (f"p{at}", of) if name in required else (f"p{at}", of, msgspec.UNSET)
        for at, (name, of) in enumerate(types.items())
    ]
    renamed = {f"p{at}": name for at, name in enumerate(types)}
    return msgspec.defstruct("Object", fields, rename=renamed, forbid_unknown_fields=closed, kw_only=True, gc=False)


def _kinds(part: dict[str, Any], asserted: set[str], place: Place) -> list[str]:
    """The types of the values that are taken; none stands for any."""
    meant = [kind for kind, keywords in ASSERTIONS.items() if asserted & keywords]
    if "type" not in part and len(meant) > 1:
        raise UntypedError(place, "no type, but keywords of several")
    listed = part.get("type", meant)
    kinds = [listed] if isinstance(listed, str) else listed
    if "pattern" in part and "string" in kinds and {"array", "object"} & set(kinds):
        # msgspec 0.22 frees memory that is not its own when it lets go of such a union: the process dies
        raise UntypedError(place, "a pattern beside arrays or objects")
    return [kind for kind in kinds if kind != "integer" or "number" not in kinds]
