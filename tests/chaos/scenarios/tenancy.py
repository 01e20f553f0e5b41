"""Tenants that are loud, and a registry that changes under load."""

import yaml

from tests.chaos.field import EVERYBODY, Field
from tests.chaos.load import Mix

CALM_SECONDS = 20.0
SHORT_SECONDS = 6.0
LOUD = (("games", 0.95), ("shop", 0.02), ("forum", 0.02), ("news", 0.01))


def loud_tenant(field: Field) -> None:
    """One tenant sends 95 % of the load, one of its users half of that: the others on its cluster stay fresh."""
    field.start_workers(2)
    field.go_on(field.lasting(SHORT_SECONDS, CALM_SECONDS))
    loud_from = field.now()
    field.publish(field.load(Mix(LOUD, hot_share=0.5)))
    field.wait(lambda: len(field.publisher.plan) >= field.events, "the load", 400)
    calm, loud = field.freshness.quantile_ms(0.99, 0, loud_from), field.freshness.quantile_ms(0.99, loud_from)
    field.figures |= {"calm_p99_ms": round(calm), "loud_p99_ms": round(loud), "ratio": round(loud / calm, 2)}
    field.fault("one tenant 95 % of the load, one user half of that")
    field.healed()


def registry_edits(field: Field) -> None:
    """The registry becomes invalid (the old one stays in force), then moves a tenant to the other tier, all under load."""
    field.homes["shop"] = ("c3n", "c1n")
    field.start_workers(2)
    field.publish(field.load(Mix(EVERYBODY)))
    field.wait_until_busy()
    good = field.world.registry.read_text("utf-8")
    field.world.edit_registry(broken={"tier": "t99"})
    field.wait_for_log("registry edit refused, the old one stays in force", 2)
    field.wait_until_busy()
    field.world.registry.write_text("clusters: [", "utf-8")
    field.wait_for_log("registry edit refused, the old one stays in force", 4)
    field.wait_until_busy()
    document = yaml.safe_load(good)
    document["tenants"]["shop"]["tier"] = "t15"
    field.world.registry.write_text(yaml.safe_dump(document), "utf-8")
    field.wait_for_log("registry put in force", 2)
    field.wait_until_busy()
    field.kill_worker()
    field.start_workers(1)
    field.fault("registry invalid x2; tenant moved to another tier; worker SIGKILL")
    field.healed()
