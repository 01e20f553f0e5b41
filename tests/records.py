"""Records and chunks as the Kafka client hands them out."""

from collections.abc import Callable

from confluent_kafka import Message

from eventstore.stream.chunk import Chunk, Member
from tests.builders import NOW_MS, envelope


def message(
    offset: int,
    value: bytes | None = None,
    *,
    tenant: str = "shop",
    uid: str = "u1",
    headers: list[tuple[str, bytes]] | None = None,
) -> Message:
    """A record of `events/3`: a sound event unless a value says otherwise."""
    body = envelope(tenant=tenant, uid=uid) if value is None else value
    key = f"{tenant}:{uid}".encode()
    return Message(
        topic="events", partition=3, offset=offset, key=key, value=body, headers=headers or [], timestamp=(1, NOW_MS)
    )


class _Heard(Member):
    def __init__(self, finish: Callable[[Chunk], None]) -> None:
        self._finish = finish

    def finish(self, chunk: Chunk) -> None:
        self._finish(chunk)


def chunk_of(*messages: Message, finish: Callable[[Chunk], None] = lambda _: None) -> Chunk:
    """A chunk of `events/3`; `finish` hears when it is finished."""
    return Chunk("events", 3, messages, 0, _Heard(finish))
