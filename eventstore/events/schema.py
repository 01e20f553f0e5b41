"""JSON Schemas for the `properties` of an event."""

from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol

import jsonschema_rs
import orjson

from eventstore.events.reject import Reason, Rejected

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class SchemaInvalidError(ValueError):
    """The document is not a JSON Schema."""


class CompiledSchema(Protocol):
    """Checks the raw bytes of an event's `properties`."""

    def check(self, properties: bytes) -> Rejected | None: ...


@dataclass(frozen=True, slots=True)
class RustSchema:
    """All of JSON Schema 2020-12, by jsonschema-rs."""

    validator: jsonschema_rs.Validator

    def check(self, properties: bytes) -> Rejected | None:
        try:
            instance = orjson.loads(properties)
        except orjson.JSONDecodeError as error:  # a lone surrogate, say: legal as bytes, unreadable as text
            return Rejected(Reason.MALFORMED, f"properties: {error}")
        if self.validator.is_valid(instance):
            return None
        first = next(self.validator.iter_errors(instance))
        path = ".".join(("properties", *map(str, first.instance_path)))
        return Rejected(Reason.SCHEMA, f"{path}: {first.message}")


def compile_schema(document: dict[str, Any] | bool) -> CompiledSchema:  # noqa: FBT001 — true and false are schemas
    """A checker for one schema document.

    Raises:
        SchemaInvalidError: what is wrong with the document.
    """
    if isinstance(document, dict) and document.get("$schema", DIALECT) != DIALECT:
        raise SchemaInvalidError(f"expected the dialect {DIALECT}, got {document['$schema']!r}")
    try:
        jsonschema_rs.meta.validate(document)
        return RustSchema(jsonschema_rs.Draft202012Validator(document, retriever=_fetch_nothing))
    except (jsonschema_rs.ValidationError, ValueError) as error:
        raise SchemaInvalidError(str(error).partition("\n")[0]) from error


def _fetch_nothing(uri: str) -> NoReturn:
    """By default the library fetches a `$ref` over HTTP: a schema must not make a worker call other hosts."""
    raise LookupError(f"{uri} is outside the document")
