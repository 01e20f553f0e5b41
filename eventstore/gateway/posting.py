"""The bodies of what is posted, as OpenAPI tells of them. What is really taken is wider: unknown fields are left alone."""

from collections.abc import Mapping
from typing import Any, Final

from eventstore.gateway.openapi import body, problem_or

_TEXT: Final = {"type": "string"}
_OBJECT: Final = {"type": "object"}
TIME: Final = {"type": ["string", "integer"], "description": "RFC 3339, or milliseconds since the epoch."}

_CALL: Final[dict[str, Any]] = {
    "type": "object",
    "description": "A call of the Segment API; `userId` or `anonymousId` is required.",
    "properties": {
        "userId": _TEXT,
        "anonymousId": _TEXT,
        "event": {"type": "string", "description": "The event's name, of a `track`."},
        "name": {"type": "string", "description": "Of a `page` or `screen`."},
        "properties": _OBJECT,
        "traits": {"type": "object", "description": "Of an `identify` or `group`."},
        "groupId": _TEXT,
        "previousId": _TEXT,
        "context": _OBJECT,
        "messageId": {"type": "string", "description": "The same one again makes no second row.", "maxLength": 100},
        "timestamp": TIME,
        "sentAt": TIME,
        "writeKey": {"type": "string", "description": "In place of the Authorization header."},
    },
}
_TYPED: Final = {**_CALL, "properties": {"type": _TEXT, **_CALL["properties"]}, "required": ["type"]}
_BATCH: Final = {
    "type": "object",
    "required": ["batch"],
    "properties": {
        "batch": {"type": "array", "items": _TYPED},
        "context": {"type": "object", "description": "For calls without one."},
        "sentAt": TIME,
        "writeKey": _TEXT,
    },
}
_ENVELOPE: Final = {
    "type": "object",
    "required": ["uid", "event"],
    "additionalProperties": False,
    "properties": {
        "tenant": {"type": "string", "description": "The key's own, if it is given."},
        "uid": {"type": "string", "minLength": 1, "maxLength": 256},
        "event": {"type": "string", "minLength": 1, "maxLength": 128},
        "message_id": {"type": "string", "maxLength": 100},
        "timestamp": {**TIME, "description": "RFC 3339 with a zone, or milliseconds since the epoch; default: now."},
        "properties": _OBJECT,
        "context": _OBJECT,
    },
}


def call_operation(receipt: type) -> Mapping[str, Any]:
    """Of one call: what is wrong with it is answered with 400 and the receipt."""
    return {"requestBody": body(application_json=_CALL), "responses": problem_or(receipt)}


def batch_operation(receipt: type) -> Mapping[str, Any]:
    return {"requestBody": body(application_json=_BATCH), "responses": problem_or(receipt)}


def envelopes_operation(receipt: type) -> Mapping[str, Any]:
    return {
        "requestBody": body(
            application_json={"anyOf": [_ENVELOPE, {"type": "array", "items": _ENVELOPE}]},
            application_x_ndjson={"type": "string", "description": "An envelope a line, of any length in all."},
        ),
        "responses": problem_or(receipt),
    }
