"""What a tenant notices of another one that sends many times what it may."""

import time
from dataclasses import dataclass
from typing import Any

import msgspec
import uvloop
import yaml

from eventstore.config import load_settings
from eventstore.tenancy import KeyUse
from tests.benchmarks.bench import Bench
from tests.benchmarks.flooder import LEAD_SECONDS, Flood, finish, flooding
from tests.benchmarks.requests import Client, post
from tests.benchmarks.results import latency
from tests.gateways import GatewayUnderTest, key, running_gateway, with_keys
from tests.world import World

OVER = 20
"""Times its rate that the loud tenant sends."""
STEADY = 100
"""Requests of one event a second, of the other one."""
WARM_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Loud:
    """A tenant, and how it floods."""

    tenant: str
    batch: int
    """Events of a request."""
    rate: int
    """Requests a second."""

    @property
    def entry(self) -> dict[str, Any]:
        """In the registry."""
        allowed = self.rate * self.batch // OVER
        return with_keys(self.tenant, tier="t30", rate={"per_second": allowed, "burst": allowed})


FLOODS = {"single events": Loud("loud", 1, 1_000), "batches of 100": Loud("bulky", 100, 100)}


def flood(bench: Bench) -> None:
    """A gateway, and a tenant at 20 times its rate: another one's requests in calm and beside the flood, in turns."""
    tenants = {"steady": with_keys("steady", tier="t30")} | {loud.tenant: loud.entry for loud in FLOODS.values()}
    target = bench.arena.target(bench.arena.cluster, [])
    document = yaml.safe_load(target.registry_path.read_text("utf-8"))
    target.registry_path.write_text(yaml.safe_dump(document | {"tenants": tenants}), "utf-8")
    environment = bench.arena.environment(bench.arena.topic(), target, "gateway")
    world = World(bench.arena.folder, load_settings(registry=target.registry_path), environment)
    with running_gateway(world, "--only", "collect") as gateway:
        uvloop.run(_steady(gateway, WARM_SECONDS))
        for _ in range(bench.scale.rounds):
            calm = latency("write", uvloop.run(_steady(gateway, bench.scale.seconds)))
            bench.record("flood", "in calm", calm)
            for name, loud in FLOODS.items():
                beside = _beside(bench, gateway, loud)
                ratio = beside["write_p99_ms"] / calm["write_p99_ms"]
                bench.record("flood", f"beside {OVER}x, {name}", beside | {"p99_ratio": ratio})


def _beside(bench: Bench, gateway: GatewayUnderTest, loud: Loud) -> dict[str, float]:
    seconds = bench.scale.seconds + 2 * LEAD_SECONDS
    with flooding(Flood(gateway.port, loud.tenant, loud.batch, loud.rate, seconds)) as process:
        time.sleep(LEAD_SECONDS)  # its burst is spent: from here on it may send what refills
        found = latency("write", uvloop.run(_steady(gateway, bench.scale.seconds)))
        flooded = finish(process)
    sent = flooded.accepted + flooded.refused
    return found | {"load": round(sent * loud.batch / seconds), "refused": flooded.refused / sent}


async def _steady(gateway: GatewayUnderTest, seconds: float) -> list[float]:
    async with Client(gateway.port) as client:
        return await client.paced(_event, STEADY, seconds)


def _event(number: int) -> bytes:
    call = {"userId": f"u{number}", "event": "viewed", "messageId": f"m-{number}", "properties": {"page": "x" * 400}}
    return post("/v1/track", key("steady", KeyUse.WRITE), msgspec.json.encode(call))
