"""A broker that dies, again and again, or stays away."""

from tests.chaos.field import Field

KILLS = 5
AWAY_SECONDS = 60.0
SHORT_SECONDS = 10.0


def broker_killed(field: Field) -> None:
    """The only broker dies five times under producers and workers, with records diverted, and is back at once."""
    field.start_workers(2)
    field.publish()
    field.set_circuit("c1n", "open")
    field.wait(lambda: field.diverted("c1n") > 0, "records of an opened circuit to be diverted")
    field.set_circuit("c1n", "auto")
    for _ in field.times(KILLS):
        field.wait_until_busy()
        field.kill_server("kafka")
        field.servers.start("kafka")
    field.fault(f"broker SIGKILL x{field.kills}")
    field.healed()


def broker_gone(field: Field) -> None:
    """No Kafka for a minute: nothing to read, nowhere to commit, nothing to publish to."""
    field.start_workers(2)
    field.publish()
    field.wait_until_busy()
    field.kill_server("kafka")
    away = field.lasting(SHORT_SECONDS, AWAY_SECONDS)
    field.go_on(away)
    field.servers.start("kafka")
    field.fault(f"broker SIGKILL and away for {away:.0f} s")
    field.healed()
