"""The embedded Kafka: one broker that is its own controller (KRaft)."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from eventstore.errors import LocalStackError
from eventstore.local.probe import speaks_kafka
from eventstore.local.server import Server, java

CLUSTER_ID = "ZXZlbnRzdG9yZS1sb2NhbA"
"""Any 16 bytes in URL-safe base64 (these say eventstore-local); fixed, so that data directories can be told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaBroker(Server):
    distribution: ClassVar[str] = "kafka"
    main_class: ClassVar[str] = "kafka.Kafka"
    overhead_mb: ClassVar[int] = 200

    @property
    def port_setting(self) -> str:
        return "set EVENTSTORE_LOCAL__KAFKA_PORT (and EVENTSTORE_KAFKA__BOOTSTRAP_SERVERS with it)"

    @property
    def _properties(self) -> Path:
        return self.configuration / "server.properties"

    def write_configuration(self) -> None:
        self._properties.write_text(
            "".join(f"{name}={value}\n" for name, value in self._settings(self.data).items()), encoding="utf-8"
        )
        (self.configuration / "log4j2.properties").write_text(_LOGGING, encoding="utf-8")

    def _settings(self, data: Path) -> dict[str, str | int]:
        controller = f"{self.address}:{self.internal_port}"
        broker = f"{self.address}:{self.port}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{broker}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(data),
            "auto.create.topics.enable": "false",  # a misspelt topic is an error, as in production
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 8,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "log.cleaner.dedupe.buffer.size": 16 * 2**20,  # the default of 128 MiB does not fit a small heap
            # after a kill the broker may register again only when its old session has expired
            "broker.session.timeout.ms": 4_000,
            "broker.heartbeat.interval.ms": 1_000,
            "group.initial.rebalance.delay.ms": 0,
            # KIP-848 groups: the default of 45 s keeps a dead member's partitions idle for so long
            "group.consumer.min.session.timeout.ms": 6_000,
            "group.consumer.session.timeout.ms": 10_000,
            "group.consumer.min.heartbeat.interval.ms": 1_000,
            "group.consumer.heartbeat.interval.ms": 3_000,
        }

    def jvm_options(self, class_path: tuple[Path, ...]) -> list[str]:
        del class_path
        return [
            "-XX:+UseSerialGC",  # half the threads and a tenth less memory, on the few cores this is made for
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self.configuration / 'log4j2.properties'}",
        ]

    def arguments(self) -> list[str]:
        return [str(self._properties)]

    def holds_user_data(self) -> bool:
        return any(path.is_dir() and not path.name.startswith("__") for path in self.data.glob("*-[0-9]*"))

    def format(self, class_path: tuple[Path, ...]) -> None:
        """Format beside the data directory and rename: a format that is cut short leaves nothing half-written."""
        if self.data.exists():
            return
        fresh = self.directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        settings = self.configuration / "format.properties"
        settings.write_text(
            "".join(f"{name}={value}\n" for name, value in self._settings(fresh).items()), encoding="utf-8"
        )
        done = subprocess.run(
            [*java(class_path, self.configuration), "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool",
             "format", "-t", CLUSTER_ID, "-c", str(settings)],
            capture_output=True, text=True, check=False, cwd=self.directory,
        )  # fmt: skip
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split())[-400:]
            raise LocalStackError(f"{self.name}: expected to format {fresh}, got: {said}")
        fresh.rename(self.data)

    def answers(self) -> bool:
        return speaks_kafka(self.address, self.port)


_LOGGING = """\
status = error
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %c{1} - %m%n
# whole configurations of every client, printed over dozens of lines
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
"""
