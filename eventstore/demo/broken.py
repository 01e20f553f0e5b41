"""A handful of records that break a rule each, and the reason that the worker must give."""

import json
from datetime import datetime
from typing import NamedTuple

from eventstore.events import Reason


class Broken(NamedTuple):
    key: bytes
    value: bytes
    reason: Reason


def broken_records(at: datetime) -> list[Broken]:
    """One record a rule; their event time is `at`."""

    def event(**changes: object) -> bytes:
        good: dict[str, object] = {
            "tenant": "en.wikipedia", "uid": "Demo", "event": "page_edited", "timestamp": at.isoformat(),
            "message_id": "demo", "properties": {"page": "Demo", "namespace": "Main", "isRobot": False},
        }  # fmt: skip
        return json.dumps(good | changes).encode()

    key = b"en.wikipedia:Demo"
    return [
        Broken(key, b'{"tenant": "en.wikipedia", "uid": "Demo", "event":', Reason.MALFORMED),
        Broken(key, event(properties="not an object"), Reason.LIMIT),
        Broken(key, event(uid=""), Reason.LIMIT),
        Broken(key, event(timestamp="2315-09-12T00:00:00Z"), Reason.TIMESTAMP),
        Broken(key, event(timestamp="2015-09-12T00:00:00"), Reason.TIMESTAMP),
        Broken(b"de.wikipedia:Demo", event(), Reason.KEY_MISMATCH),
        Broken(b"tlh.wikipedia:Demo", event(tenant="tlh.wikipedia"), Reason.UNKNOWN_TENANT),
        Broken(key, event(properties={"page": "Demo", "namespace": "Main", "isRobot": "maybe"}), Reason.SCHEMA),
        Broken(key, event(context={"padding": "x" * 33_000}), Reason.TOO_LARGE),
        Broken(key, b"", Reason.EMPTY),
    ]
