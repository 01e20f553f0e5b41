"""All of JSON Schema 2020-12, by jsonschema-rs: the verdict that every other way must come to, and what explains it."""

import re
from dataclasses import dataclass
from math import isinf
from typing import Any, Final, NoReturn

import jsonschema_rs
import orjson

from eventstore.events.reject import Reason, Rejected

LARGEST: Final = b"1.7976931348623157e308"
MOST_EXPLAINED: Final = 1_000
"""Values in an event's properties, about, up to which a fault is looked for."""
_INFINITY: Final = "number is infinity"
"""How orjson begins to say that a number is beyond a double's range."""
_LITERALS: Final = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"|(?P<sign>-?)(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][-+]?[0-9]++)?+', re.DOTALL
)
"""Strings and numbers of JSON."""


class SchemaInvalidError(ValueError):
    """The document is not a JSON Schema."""


@dataclass(frozen=True, slots=True)
class RustSchema:
    validator: jsonschema_rs.Validator
    untyped: str | None = None
    """What in the document keeps it from being checked by a type; None if nothing was tried."""

    def check(self, properties: bytes) -> Rejected | None:
        try:
            instance = _read(properties)
        except orjson.JSONDecodeError as error:  # a lone surrogate, say: legal as bytes, unreadable as text
            return Rejected(Reason.MALFORMED, f"properties: {error}")
        if self.validator.is_valid(instance):
            return None
        return Rejected(Reason.SCHEMA, self._fault(instance, properties))

    def _fault(self, instance: Any, properties: bytes) -> str:
        """What is wrong first. The library hands out a copy of what is wrong, which can be everything: up to 6 ms."""
        values = properties.count(b",") + properties.count(b":")
        if values > MOST_EXPLAINED:
            return f"properties: not valid under the event's schema; about {values} values are too many to say which"
        try:
            self.validator.validate(instance)
        except jsonschema_rs.ValidationError as fault:
            path = ".".join(("properties", *map(str, fault.instance_path)))
            return f"{path}: {fault.message}"
        raise RuntimeError("expected properties that break the schema")


def rust_schema(document: dict[str, Any] | bool) -> RustSchema:  # noqa: FBT001 — true and false are schemas
    """A checker for any schema document.

    Raises:
        SchemaInvalidError: what is wrong with the document.
    """
    try:
        jsonschema_rs.meta.validate(document)
        return RustSchema(jsonschema_rs.Draft202012Validator(document, retriever=_fetch_nothing))
    except (jsonschema_rs.ValidationError, ValueError) as error:
        raise SchemaInvalidError(str(error).partition("\n")[0]) from error


def _fetch_nothing(uri: str) -> NoReturn:
    """By default the library fetches a `$ref` over HTTP: a schema must not make a worker call other hosts."""
    raise LookupError(f"{uri} is outside the document")


def _read(properties: bytes) -> Any:
    """The value; numbers beyond a double's range, legal in JSON, become the largest double.

    Refused, they would be so only for tenants with a schema, and only where somebody looks at the field.
    """
    try:
        return orjson.loads(properties)
    except orjson.JSONDecodeError as error:
        if not error.msg.startswith(_INFINITY):
            raise
        return orjson.loads(_LITERALS.sub(_bounded, properties))


def _bounded(literal: re.Match[bytes]) -> bytes:
    sign = literal["sign"]
    return literal[0] if sign is None or not isinf(float(literal[0])) else sign + LARGEST
