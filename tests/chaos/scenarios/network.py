"""A network between workers and servers that is slow, silent, cut or torn: through a proxy."""

from collections.abc import Callable

import yaml

from tests.chaos.field import Field
from tests.chaos.proxy import Proxy, running_proxy
from tests.chaos.servers import CQL_PORT, PROXIED_PORT, PROXY_ADDRESS, SINGLE

LASTING = 8.0
SHORT = 4.0
RESETS = 5
IN_MID_FRAME = 1_000
"""Bytes of answers: an odd place in some frame."""
BLACK_HOLE_SECONDS = 12.0
"""Longer than a session of the group lasts, and than the circuit waits."""


def between_worker_and_store(field: Field) -> None:
    """Every weather between the workers and the only node of a cluster."""
    with (
        running_proxy((SINGLE, CQL_PORT), (PROXY_ADDRESS, CQL_PORT)) as proxy,
        field.servers.advertised("c1n", PROXY_ADDRESS),
    ):
        straight = field.world.registry.read_text("utf-8")
        document = yaml.safe_load(straight)
        document["clusters"]["c1n"]["contact_points"] = [PROXY_ADDRESS]
        field.world.registry.write_text(yaml.safe_dump(document), "utf-8")
        field.start_workers(2)
        lanes = [line["node"] for line in field.world.log_lines("lane connected") if line["cluster"] == "c1n"]
        assert all(node.startswith(PROXY_ADDRESS) for node in lanes), lanes
        field.publish()
        _weather(field, proxy)
        field.wait_until_drained()
        field.settle()
    field.world.registry.write_text(straight, "utf-8")


def between_worker_and_kafka(field: Field) -> None:
    """Every weather between the workers and the broker."""
    with running_proxy(("127.0.0.1", PROXIED_PORT), (PROXY_ADDRESS, PROXIED_PORT)) as proxy:
        by_proxy = {"EVENTSTORE_KAFKA__BOOTSTRAP_SERVERS": f"{PROXY_ADDRESS}:{PROXIED_PORT}"}
        field.start_workers(2, **by_proxy)
        field.publish()
        _weather(field, proxy)
        field.settle()


def _weather(field: Field, proxy: Proxy) -> None:
    """One fault after the other; each begins when work is being done again."""
    faults: tuple[tuple[str, Callable[[], None]], ...] = (
        ("latency 0.2 s with jitter", lambda: proxy.slow(0.1, jitter=0.2)),
        ("half-open connections", proxy.half_open),
        ("slow close", lambda: _close_slowly(proxy)),
        ("refused connections", proxy.disable),
        ("cut in mid frame", lambda: proxy.cut(IN_MID_FRAME)),
        ("black hole", proxy.hold),
    )
    for name, begin in faults:
        field.wait_until_busy()
        field.wait(lambda: bool(proxy.connections), "the workers to come by the proxy")
        begin()
        lasting = BLACK_HOLE_SECONDS if name == "black hole" else LASTING
        field.go_on(field.lasting(SHORT, lasting))
        proxy.heal()
        field.fault(name)
    for _ in field.times(RESETS):
        field.wait_until_busy()
        proxy.reset()
    field.fault(f"reset x{len(field.times(RESETS))}")
    field.figures["connections"] = proxy.accepted
    field.healed()


def _close_slowly(proxy: Proxy) -> None:
    proxy.close_slowly(SHORT)
    proxy.half_open()
