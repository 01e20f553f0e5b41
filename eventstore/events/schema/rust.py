"""All of JSON Schema 2020-12, by jsonschema-rs: the verdict that every other way must come to, and what explains it."""

import re
from dataclasses import dataclass
from math import isinf
from typing import Any, Final, NoReturn

import jsonschema_rs
import orjson

from eventstore.events.reject import Reason, Rejected

LARGEST: Final = b"1.7976931348623157e308"
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
        first = next(self.validator.iter_errors(instance))
        path = ".".join(("properties", *map(str, first.instance_path)))
        return Rejected(Reason.SCHEMA, f"{path}: {first.message}")


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
    except orjson.JSONDecodeError:
        bounded = _LITERALS.sub(_bounded, properties)
        if bounded == properties:
            raise
        return orjson.loads(bounded)


def _bounded(literal: re.Match[bytes]) -> bytes:
    sign = literal["sign"]
    return literal[0] if sign is None or not isinf(float(literal[0])) else sign + LARGEST
