"""An embedded CQL server: one Cassandra process, a node of its own cluster or of a larger one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from eventstore.config import LocalPurpose
from eventstore.local.jolokia import POLICY, policy
from eventstore.local.probe import speaks_cql
from eventstore.local.server import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class CassandraNode(Server):
    """Nodes of one cluster share its name, seeds, ports and datacentre, and differ in address and rack.

    Start them one after the other, the seed first: started at once, a node gives up because it finds no peer to gossip
    with, and another makes a ring of its own.
    """

    distribution: ClassVar[str] = "cassandra"
    main_class: ClassVar[str] = "org.apache.cassandra.service.CassandraDaemon"
    overhead_mb: ClassVar[int] = 400
    cluster: str
    datacenter: str
    rack: str = "r1"
    seeds: tuple[str, ...]
    """Each `address:internal_port`."""
    management_port: int | None = None
    """Where snapshots are asked for, on the node's address; None: nowhere."""
    incremental_backups: bool = False
    """Whether every flushed file is kept for a backup too."""

    @property
    def port_setting(self) -> str:
        return f"change `port` of cluster {self.cluster} in the registry"

    @property
    def other_ports(self) -> tuple[int, ...]:
        management = () if self.management_port is None else (self.management_port,)
        return (self.internal_port, *management)

    def write_configuration(self) -> None:
        (self.configuration / "cassandra.yaml").write_text(yaml.safe_dump(self._settings()), encoding="utf-8")
        (self.configuration / "cassandra-rackdc.properties").write_text(
            f"dc={self.datacenter}\nrack={self.rack}\n", encoding="utf-8"
        )
        (self.configuration / "logback.xml").write_text(_LOGGING, encoding="utf-8")
        (self.configuration / POLICY).write_text(policy(), encoding="utf-8")

    def _settings(self) -> dict[str, Any]:
        return {
            "cluster_name": self.cluster,
            "num_tokens": 8,
            "auto_bootstrap": False,
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "endpoint_snitch": "GossipingPropertyFileSnitch",
            "seed_provider": [
                {
                    "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                    "parameters": [{"seeds": ",".join(self.seeds)}],
                }
            ],
            "listen_address": self.address,
            "rpc_address": self.address,
            "native_transport_port": self.port,
            "storage_port": self.internal_port,
            "ssl_storage_port": self.internal_port,
            "data_file_directories": [str(self.data / "data")],
            "commitlog_directory": str(self.data / "commitlog"),
            "saved_caches_directory": str(self.data / "saved_caches"),
            "hints_directory": str(self.data / "hints"),
            "cdc_raw_directory": str(self.data / "cdc_raw"),
            **_SETTINGS[self.purpose],
            "commitlog_segment_size": "16MiB",
            "commitlog_total_space": "256MiB",
            "disk_failure_policy": "die",
            "commit_failure_policy": "die",
            "auto_snapshot": False,
            "incremental_backups": self.incremental_backups,
            "storage_compatibility_mode": "NONE",  # BTI sstables need it
            "sstable": {"selected_format": "bti"},
            "memtable": {"configurations": {"trie": {"class_name": "TrieMemtable"}, "default": {"inherits": "trie"}}},
            "memtable_allocation_type": "offheap_objects",
            "memtable_heap_space": "128MiB",
            "memtable_offheap_space": "128MiB",
            "file_cache_size": "64MiB",
            "networking_cache_size": "32MiB",
            "concurrent_compactors": 1,
        }

    def jvm_options(self, class_path: tuple[Path, ...]) -> list[str]:
        agent = next(path for path in class_path if path.name.startswith("jamm-"))
        return [
            f"-javaagent:{agent}",
            *self._management(class_path),
            "-Xss256k",
            "-Djava.awt.headless=true",
            f"-Dcassandra.config={(self.configuration / 'cassandra.yaml').as_uri()}",
            f"-Dcassandra.storagedir={self.data}",
            f"-Dcassandra.logdir={self.directory}",
            f"-Dlogback.configurationFile={self.configuration / 'logback.xml'}",
            "-Dcassandra-foreground=yes",
            # alone or with nodes that start at the same moment: nothing to wait for
            "-Dcassandra.ring_delay_ms=1",
            "-Dcassandra.skip_wait_for_gossip_to_settle=0",
            "-Dcassandra.shutdown_announce_in_ms=0",
            f"-Djna.tmpdir={self.directory / 'tmp'}",
            "-Djdk.attach.allowAttachSelf=true",
            "-Dio.netty.tryReflectionSetAccessible=true",
            *(word for package in _EXPORTED for word in ("--add-exports", f"{package}=ALL-UNNAMED")),
            *(word for package in _OPENED for word in ("--add-opens", f"{package}=ALL-UNNAMED")),
        ]

    def _management(self, class_path: tuple[Path, ...]) -> list[str]:
        if self.management_port is None:
            return []
        agent = next(path for path in class_path if path.name.startswith("jolokia-"))
        allowed = (self.configuration / POLICY).as_uri()
        return [f"-javaagent:{agent}=host={self.address},port={self.management_port},policyLocation={allowed}"]

    def arguments(self) -> list[str]:
        return []

    def holds_user_data(self) -> bool:
        return any(not path.name.startswith("system") for path in (self.data / "data").glob("*"))

    def format(self, class_path: tuple[Path, ...]) -> None:
        """It formats itself at its first start."""

    def answers(self) -> bool:
        return speaks_cql(self.address, self.port)


_SETTINGS: dict[LocalPurpose, dict[str, Any]] = {
    # `periodic` replays only up to a mark set every 100 ms: a kill would lose acknowledged writes
    LocalPurpose.TRIAL: {"commitlog_sync": "batch"},
    # Cassandra's own default: a sync for each write costs more than half of a node's throughput. Then a write waits for
    # nothing, and threads beyond those that have a core only take turns: a tenth of the CPU.
    LocalPurpose.LOAD: {
        "commitlog_sync": "periodic",
        "commitlog_sync_period": "10s",
        "concurrent_writes": 4,
        "concurrent_reads": 4,
        "native_transport_max_threads": 4,
    },
}
# What Cassandra 5.0 asks of Java 17, less the modules that the packaged JRE does not have.
_EXPORTED = (
    "java.base/jdk.internal.misc",
    "java.base/java.lang.ref",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "jdk.attach/sun.tools.attach",
    "jdk.unsupported/sun.misc",
)
_OPENED = (
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.util",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
)
_LOGGING = """\
<configuration>
  <appender name="console" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%date{ISO8601} %-5level %logger{0} - %msg%n</pattern></encoder>
  </appender>
  <logger name="org.apache.cassandra.config.Config" level="WARN"/>  <!-- the whole configuration on one line -->
  <root level="INFO"><appender-ref ref="console"/></root>
</configuration>
"""
