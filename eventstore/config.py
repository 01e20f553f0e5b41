"""Settings: defaults, then a TOML file, then the environment; the later wins.

The file is named by `EVENTSTORE_CONFIG` (default: `eventstore.toml` in the working directory, if it is there).
A nested setting is spelled with a double underscore: `EVENTSTORE_KAFKA__BOOTSTRAP_SERVERS=kafka-1:9092`.
Secrets may also be files in a directory named by `EVENTSTORE_SECRETS_DIR`, one file a setting.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from eventstore.errors import ConfigurationError

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]


class GroupProtocol(StrEnum):
    CLASSIC = "classic"
    CONSUMER = "consumer"


class SecurityProtocol(StrEnum):
    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(Section):
    bootstrap_servers: str = Field("127.0.0.1:19092", description="Kafka brokers, `host:port`, comma-separated.")
    security_protocol: SecurityProtocol = Field(SecurityProtocol.PLAINTEXT, description="How to talk to the brokers.")
    sasl_mechanism: str | None = Field(None, description="`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.")
    sasl_username: str | None = Field(None, description="User for SASL.")
    sasl_password: SecretStr | None = Field(None, description="Password for SASL; better as a secret file.")
    ssl_ca_location: Path | None = Field(None, description="PEM file with the authorities that sign the brokers.")
    ssl_certificate_location: Path | None = Field(None, description="PEM file with our certificate (mutual TLS).")
    ssl_key_location: Path | None = Field(None, description="PEM file with our private key (mutual TLS).")
    options: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="Any other librdkafka property, passed through as it is."
    )


class TopicSettings(Section):
    events: str = Field("events", description="Where producers publish.")
    dead_letters: str = Field("events.dlq", description="Where rejected records go.")
    retry_prefix: str = Field(
        "events.retry", description="Where records wait for a cluster that is away: this, a dot, the cluster's name."
    )
    control: str = Field("events.control", description="Table of what operators want of the circuits.")
    erasures: str = Field("events.erasures", description="Table of erased users.")
    marks: str = Field("events.marks", description="Table of backup marks.")
    replays: str = Field("events.replays", description="Table of replays and their state.")
    partitions: Count = Field(
        8, description="Partitions of the event, dead-letter and retry topics when they are created."
    )
    replication: Count = Field(1, description="Replicas of each topic when it is created; 3 in production.")
    retention_hours: Count = Field(168, description="How long Kafka keeps events, in hours: the reach of a replay.")
    dead_letters_retention_hours: Count = Field(720, description="How long Kafka keeps rejects, in hours.")


class Compression(StrEnum):
    NONE = "none"
    GZIP = "gzip"
    SNAPPY = "snappy"
    LZ4 = "lz4"
    ZSTD = "zstd"


class ProducerSettings(Section):
    compression: Compression = Field(Compression.LZ4, description="`none`, `gzip`, `snappy`, `lz4` or `zstd`.")
    delivery_timeout: Seconds = Field(30.0, description="Seconds until a record that Kafka has not confirmed fails.")
    linger: Seconds = Field(0.01, description="Seconds that a record waits for others to share its batch.")
    queue_bytes: Count = Field(32 * 2**20, description="Most bytes handed to Kafka and not yet confirmed.")


class WorkerSettings(Section):
    group: str = Field("eventstore", description="Consumer group.")
    group_protocol: GroupProtocol = Field(
        GroupProtocol.CLASSIC, description="`classic` (cooperative-sticky) or `consumer` (KIP-848, Kafka >= 4)."
    )
    instance_id: str | None = Field(None, description="Static membership: a name that survives this worker's restart.")
    session_timeout: Seconds = Field(10.0, description="Seconds without a heartbeat after which a worker is dead.")
    commit_interval: Seconds = Field(1.0, description="Seconds between offset commits.")
    drain_timeout: Seconds = Field(5.0, description="Seconds to finish open work on a revocation or a stop.")
    chunk_records: Count = Field(2_000, description="Most records handed on at once.")
    in_flight_records: Count = Field(16_000, description="Most records taken from Kafka and not yet finished.")
    in_flight_bytes: Count = Field(16 * 2**20, description="Most bytes taken from Kafka and not yet finished.")
    fetch_queue_bytes: Count = Field(8 * 2**20, description="Most bytes prefetched by the Kafka client.")
    max_future: Seconds = Field(86_400.0, description="Seconds that an event may lie in the future.")
    late_after: Seconds = Field(
        3_600.0, description="Age in seconds from which a row is written with its remaining time to live."
    )
    metrics_port: int = Field(
        0, ge=0, le=65_535, description="Port for Prometheus metrics and health on all interfaces; 0 serves none."
    )
    stall_timeout: Seconds = Field(
        60.0,
        description="Seconds for one turn of the main loop or the Kafka pump, or for records to get to it; a worker that takes "
        "longer is not alive.",
    )
    chunk_timeout: Seconds = Field(
        300.0, description="Seconds to work on what was taken together; a worker that takes longer is not alive."
    )
    assignment_timeout: Seconds = Field(
        300.0, description="Seconds without an assignment of the group's; a worker that waits longer is not alive."
    )
    restart_backoff_max: Seconds = Field(30.0, description="`--processes`: most seconds before a dead child restarts.")
    halt_reject_share: float = Field(
        0.5, ge=0, le=1, description="A worker ends when a greater share of its records is rejected; 1: never."
    )
    halt_reject_records: Count = Field(1_000, description="Fewest records for such a share to mean anything.")
    halt_reject_seconds: Seconds = Field(60.0, description="Seconds over which the share is taken.")


class WritePath(StrEnum):
    LANE = "lane"
    DRIVER = "driver"


class WriterSettings(Section):
    path: WritePath = Field(
        WritePath.LANE,
        description="`lane`: pre-encoded frames over our own connections; `driver`: the CQL driver's batches.",
    )
    in_flight_batches: Count = Field(
        256, description="Most batches on their way: to one node or shard (`lane`), to one cluster (`driver`)."
    )
    batch_rows: int = Field(50, ge=1, le=65_535, description="Most rows in one single-partition batch.")
    batch_bytes: Count = Field(48 * 1024, description="Most bytes of row data in one single-partition batch.")
    request_timeout: Seconds = Field(5.0, description="Seconds until one write request is given up and tried again.")
    retry_deadline: Seconds = Field(
        60.0,
        description="Seconds without one batch stored after which a write is given up: its circuit opens; a replay ends.",
    )
    backoff_base: Seconds = Field(0.05, description="First back-off in seconds; doubled each time, with full jitter.")
    backoff_max: Seconds = Field(2.0, description="Longest back-off in seconds.")


class CircuitSettings(Section):
    refusal: Seconds = Field(
        0.5, description="Seconds of nothing but refusals after which a cluster's records are diverted."
    )
    silence: Seconds = Field(3.0, description="The same, while the cluster says nothing at all.")
    patience: Seconds = Field(
        10.0, description="Seconds that a write waits for a slow cluster until its records are diverted."
    )
    slow: Seconds = Field(
        4.0,
        description="Seconds from which a write is slow: nothing but slow ones for `patience`, and the records are "
        "diverted, lest other clusters' wait behind them.",
    )
    first_pause: Seconds = Field(1.0, description="Seconds from opening to the first probe; doubled by each failure.")
    longest_pause: Seconds = Field(10.0, description="Most seconds between two probes.")
    settled: Seconds = Field(
        60.0, description="Seconds closed after which the next opening begins with the first pause again."
    )
    drain_rate: Rate = Field(
        5_000.0, description="Diverted records brought home a second, of each cluster on each worker."
    )
    drain_look: Seconds = Field(5.0, description="Seconds between two looks at what is diverted.")
    drain_idle: Seconds = Field(10.0, description="Seconds without a record after which a drain ends.")


class ReaderSettings(Section):
    request_timeout: Seconds = Field(2.0, description="Seconds until one read request fails.")
    concurrency: Count = Field(8, description="Most buckets of one timeline read at the same time.")
    page_rows: Count = Field(500, description="Most rows fetched by one request.")


class GatewaySettings(Section):
    host: str = Field("127.0.0.1", description="Address that the HTTP edge listens on; `0.0.0.0` for all.")
    port: int = Field(8080, ge=1, le=65_535, description="Port that the HTTP edge listens on.")
    tls_certificate: Path | None = Field(None, description="PEM file with the certificate chain; none: plain HTTP.")
    tls_key: Path | None = Field(None, description="PEM file with the certificate's private key.")
    cors_origins: list[str] = Field(
        default_factory=list, description="Web origins whose pages may call us, `https://shop.example`; `*` for all."
    )
    body_timeout: Seconds = Field(10.0, description="Seconds that a request's body may take to arrive.")
    header_timeout: Seconds = Field(10.0, description="Seconds that a request's headers may take to arrive.")
    request_bytes: Count = Field(8 * 2**20, description="Most bytes of an array of events in our own envelope.")
    body_bytes: Count = Field(
        256 * 2**20, description="Most bytes of all bodies held at a time; more are answered 503."
    )
    connections: Count = Field(
        4_096, description="Most open connections, idle ones and live feeds among them; others wait to be accepted."
    )
    open_requests: Count = Field(1_024, description="Most requests worked on at a time; more are answered 503.")
    read_timeout: Seconds = Field(5.0, description="Seconds that a read, or a part of an export, may take; then 504.")
    open_reads: Count = Field(256, description="Most reads of one cluster worked on at a time; more are answered 503.")
    open_exports: Count = Field(
        16, description="Most NDJSON exports from one cluster at a time; more are answered 503."
    )
    drain_timeout: Seconds = Field(15.0, description="Seconds that open requests have to end when it stops.")
    live_feeds: Count = Field(1_000, description="Most live feeds at a time; more are answered 503.")
    live_heartbeat: Seconds = Field(15.0, description="Seconds between two signs of life of a live feed.")
    metrics_port: int = Field(
        0, ge=0, le=65_535, description="Port for Prometheus metrics and health on all interfaces; 0 serves none."
    )


class ReplaySettings(Section):
    expected_rate: Rate = Field(
        20_000.0, description="Records a second that one process of a replay is expected to store, for estimates."
    )


class LocalPurpose(StrEnum):
    TRIAL = "trial"
    LOAD = "load"


class LocalSettings(Section):
    kafka_port: int = Field(19092, description="Port of the embedded Kafka on 127.0.0.1.")
    data_dir: Path = Field(
        Path(".eventstore"), description="Where the embedded servers keep their data, logs and process files."
    )
    cache_dir: Path | None = Field(None, description="Where artifacts are cached; default: the user's cache directory.")
    maven_repository: str | None = Field(
        None, description="Base address of a Maven repository to fetch the servers from; default: the public one."
    )
    start_timeout: Seconds = Field(180.0, description="Seconds that an embedded server has to start.")
    backup_dir: Path = Field(
        Path(".eventstore-backup"), description="Where `eventstore backup` copies what it takes from embedded servers."
    )
    incremental_backups: bool = Field(
        False, description="Whether embedded Cassandras keep every flushed file for `eventstore backup --increment`."
    )
    purpose: LocalPurpose = Field(
        LocalPurpose.TRIAL,
        description="`trial`: embedded servers start quickly, and a write is on disk before it is acknowledged; `load`: as in "
        "production, for measuring: the JVMs optimise early, Cassandra syncs its commit log every 10 s.",
    )
    kafka_memory_mb: int = Field(512, ge=128, description="Heap of the embedded Kafka, in MiB.")
    cassandra_memory_mb: int = Field(512, ge=256, description="Heap of each embedded Cassandra, in MiB.")


class LogFormat(StrEnum):
    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogSettings(Section):
    level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severity that is logged.")
    format: LogFormat = Field(LogFormat.AUTO, description="`console`, `json`, or `auto`: console on a terminal.")


class Settings(BaseSettings):
    """All settings of every command and worker."""

    model_config = SettingsConfigDict(
        env_prefix="EVENTSTORE_", env_nested_delimiter="__", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    registry: Path = Field(
        Path("tenants.yaml"),
        description="The tenant registry (YAML).",
        validation_alias=AliasChoices("EVENTSTORE_REGISTRY", "registry"),
    )
    kafka: KafkaSettings = Field(default_factory=KafkaSettings, description="Brokers.")
    topics: TopicSettings = Field(default_factory=TopicSettings, description="Topics.")
    producer: ProducerSettings = Field(default_factory=ProducerSettings, description="Records published by us.")
    worker: WorkerSettings = Field(default_factory=WorkerSettings, description="Ingest workers.")
    writer: WriterSettings = Field(default_factory=WriterSettings, description="Writes to the CQL clusters.")
    circuit: CircuitSettings = Field(
        default_factory=CircuitSettings, description="When to divert a cluster's records, and how they come home."
    )
    reader: ReaderSettings = Field(default_factory=ReaderSettings, description="Reads from the CQL clusters.")
    replay: ReplaySettings = Field(default_factory=ReplaySettings, description="Replays.")
    gateway: GatewaySettings = Field(default_factory=GatewaySettings, description="The HTTP edge.")
    local: LocalSettings = Field(default_factory=LocalSettings, description="The embedded stack.")
    log: LogSettings = Field(default_factory=LogSettings, description="Logs.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 — pydantic-settings' signature
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, toml_file=config_file())
        # the plain source would look for a whole section in one file
        secrets = NestedSecretsSettingsSource(file_secret_settings, secrets_dir_missing="error")
        return init_settings, env_settings, secrets, toml


def config_file() -> Path | None:
    """The settings file in force.

    Raises:
        ConfigurationError: `EVENTSTORE_CONFIG` names a file that is not there.
    """
    if named := os.environ.get("EVENTSTORE_CONFIG"):
        path = Path(named)
        if not path.is_file():
            raise ConfigurationError(
                f"EVENTSTORE_CONFIG: expected a settings file, found none at {path}; mend the path"
            )
        return path
    default = Path("eventstore.toml")
    return default if default.is_file() else None


def load_settings(**overrides: Any) -> Settings:
    """Settings from defaults, file and environment; `overrides` (by section name) win over all of them.

    Raises:
        ConfigurationError: every invalid setting at once, by name, with what was expected.
    """
    try:
        return Settings(_secrets_dir=os.environ.get("EVENTSTORE_SECRETS_DIR"), **overrides)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"settings: {problems}; see `eventstore settings` for names and units") from error
    except ValueError as error:  # an unparsable TOML file
        raise ConfigurationError(f"settings: {error}; mend {config_file() or 'the environment'}") from error
