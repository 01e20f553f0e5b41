"""Events that come over HTTP, while what is behind the gateway dies, or the gateway itself."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from tests.chaos.clients import Clients
from tests.chaos.evidence import number_of
from tests.chaos.field import EVERYBODY, TENANTS, Field
from tests.chaos.load import Mix
from tests.chaos.posts import posts
from tests.gateways import GatewayUnderTest, running_gateway, with_keys

WITH_KEYS: Final[Mapping[str, Any]] = {name: with_keys(name, **fields) for name, fields in TENANTS.items()}
PORT: Final = 30_080
"""Below the ports that clients' connections are given: one of them might have it when the gateway comes back."""
KILLS: Final = 5
BROKER_KILLS: Final = 4
"""Each takes a broker's whole start."""
DELIVERY_SECONDS: Final = 2.0
"""Until the gateway gives up on Kafka: sooner than the broker is back."""
FLOWING: Final = 20
"""Requests answered with 200 one after the other: all is well again."""
OWED: Final = Mix(EVERYBODY, expired=0.0, again=0.0, other_payload=0.0)
"""Every event owes one record and one row. It is the clients that send some twice, after an answer that they did not get."""


def kafka_killed(field: Field) -> None:
    """The broker dies four times under a gateway: it answers 503 until Kafka is back, and nothing that it answered with 200 is
    missing.
    """
    field.start_workers(1)
    with _gateway(field), _posting(field) as clients:
        for turn in field.times(BROKER_KILLS):
            _wait_until_flowing(field, clients, (turn + 1) / (BROKER_KILLS + 1))
            told = clients.heard["503"]
            field.kill_server("kafka")
            field.wait(lambda told=told: clients.heard["503"] > told, "a 503 while Kafka is away")  # type: ignore[misc]
            field.servers.start("kafka")
        clients.finish(field.events)
    field.fault(f"broker SIGKILL x{field.kills} under a gateway")
    _reckon(field, clients)


def gateway_killed(field: Field) -> None:
    """The gateway dies five times with requests in its hands, and is told to stop once: nothing that it answered with 200 is missing."""
    field.start_workers(1)
    with _posting(field) as clients:
        for turn in field.times(KILLS):
            with _gateway(field) as gateway:
                _wait_until_flowing(field, clients, (turn + 1) / (KILLS + 2))
                gateway.process.kill()
                gateway.process.wait()
                field.kills += 1
        with _gateway(field) as gateway:
            _wait_until_flowing(field, clients, (KILLS + 1) / (KILLS + 2))
            assert gateway.terminate() == 0
        with _gateway(field):
            clients.finish(field.events)
    field.fault(f"gateway SIGKILL x{field.kills}, SIGTERM")
    _reckon(field, clients)


@contextmanager
def _posting(field: Field) -> Iterator[Clients]:
    """Clients at the field's rate, until they finish or the block ends."""
    clients = Clients(PORT, field.publisher.plan, field.publisher.acknowledged)
    clients.start(posts(field.load(OWED)), field.events, field.rate)
    try:
        yield clients
    finally:
        clients.end()


def _gateway(field: Field) -> AbstractContextManager[GatewayUnderTest]:
    return running_gateway(
        field.world, "--only", "collect", port=PORT, EVENTSTORE_PRODUCER__DELIVERY_TIMEOUT=str(DELIVERY_SECONDS)
    )


def _wait_until_flowing(field: Field, clients: Clients, share: float) -> None:
    """Until that share of the events was posted, requests are answered again, and some are being worked on."""
    before = clients.heard["200"]

    def flowing() -> bool:
        far = clients.posted >= share * field.events
        return far and clients.heard["200"] >= before + FLOWING and clients.open > 0

    field.wait(flowing, "requests in the gateway's hands")


def _reckon(field: Field, clients: Clients) -> None:
    """The log against the answers. Whether each event has its row, and one only, is then the oracle's to say."""
    field.healed()
    events = field.topics.records(field.world.settings.topics.events)
    logged = Counter(number for event in events if (number := number_of(event)) in clients.plan)
    missing = clients.accepted - logged.keys()
    field.figures |= {
        "answered_200": len(clients.accepted),
        "not_in_log": len(missing),
        "twice_in_log": sum(logged[number] - 1 for number in clients.accepted & logged.keys()),
        "told_503": clients.heard["503"],
        "cut": clients.heard["cut"],
        "refused": clients.heard["refused"],
    }
    assert not clients.faults, f"{len(clients.faults)} answers that must not be: {clients.faults[:3]}"
