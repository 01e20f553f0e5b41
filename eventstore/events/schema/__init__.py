"""JSON Schemas for the `properties` of an event.

Nearly every event keeps its schema, so what counts is the price of a yes: the common part of JSON Schema is compiled to a
msgspec type, which says it in one pass over the bytes. Whatever that type does not take is judged by all of JSON Schema.
"""

from dataclasses import replace
from typing import Any, Final, Protocol

from eventstore.events.reject import Rejected
from eventstore.events.schema.rust import RustSchema, SchemaInvalidError, rust_schema
from eventstore.events.schema.scalars import UntypedError
from eventstore.events.schema.typed import TypedSchema, typed_schema

__all__ = ["CompiledSchema", "RustSchema", "SchemaInvalidError", "TypedSchema", "compile_schema", "rust_schema"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class CompiledSchema(Protocol):
    """Checks the raw bytes of an event's `properties`: UTF-8 and no deeper than `check_object` lets through."""

    @property
    def untyped(self) -> str | None:
        """What in the document keeps it from being checked by a type, at a third of the price; None if nothing does."""

    def check(self, properties: bytes) -> Rejected | None: ...


def compile_schema(document: dict[str, Any] | bool) -> CompiledSchema:  # noqa: FBT001 — true and false are schemas
    """A checker for one schema document.

    Raises:
        SchemaInvalidError: what is wrong with the document.
    """
    if isinstance(document, dict) and document.get("$schema", DIALECT) != DIALECT:
        raise SchemaInvalidError(f"expected the dialect {DIALECT}, got {document['$schema']!r}")
    full = rust_schema(document)
    try:
        return typed_schema(document, full)
    except UntypedError as reason:
        return replace(full, untyped=str(reason))
