"""One session of the CQL driver with one cluster of the registry."""

import logging
import os
import ssl
from typing import Final

from cassandra import ConsistencyLevel, DriverException, OperationTimedOut
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, ExecutionProfile, NoHostAvailable, Session
from cassandra.cluster import Cluster as Driver
from cassandra.io.libevreactor import LibevConnection
from cassandra.policies import (
    DCAwareRoundRobinPolicy,
    ExponentialReconnectionPolicy,
    FallthroughRetryPolicy,
    TokenAwarePolicy,
)

from eventstore.errors import ConfigurationError, PermanentStoreError
from eventstore.store.failures import mapped
from eventstore.tenancy import Cluster, Credentials, TlsFiles

PROTOCOL_VERSION: Final = 4
"""What ScyllaDB and Cassandra both speak."""
RECONNECT_FIRST: Final = 0.5
RECONNECT_MOST: Final = 10.0
"""Seconds between attempts to reach a lost node: a cluster that returns is used again soon."""


def connect(cluster: Cluster, *, request_timeout: float = 5.0) -> Session:
    """A session of its own with one cluster, ready to prepare and execute; blocks until a node has answered.

    Requests go to a replica in the cluster's datacenter at LOCAL_QUORUM and are never retried by the driver: retries
    are decided by the caller. The cluster's keyspace is the session's if it exists. Errors of the session's own
    requests are the driver's: wrap them in `eventstore.store.failures.mapped`. End it with `close`.

    Args:
        cluster: whom to connect to.
        request_timeout: seconds that connecting to a node, or one request, may take.

    Raises:
        ConfigurationError: a password or TLS file is not where the registry says.
        TransientStoreError: no node answers.
        PermanentStoreError: access refused, wrong datacenter, a certificate that does not fit.
    """
    _drop_stack_traces()
    login, tls = _login(cluster), tls_context(cluster)
    with mapped(cluster.name):
        driver = Driver(
            contact_points=list(cluster.contact_points),
            port=cluster.port,
            protocol_version=PROTOCOL_VERSION,
            connection_class=LibevConnection,
            execution_profiles={EXEC_PROFILE_DEFAULT: _profile(cluster, request_timeout)},
            reconnection_policy=ExponentialReconnectionPolicy(RECONNECT_FIRST, RECONNECT_MOST),
            auth_provider=login,
            ssl_context=tls,
            compression=False,
            connect_timeout=request_timeout,
            control_connection_timeout=request_timeout,
            # other applications' tables would be read at every connect and at every change of theirs
            schema_metadata_enabled=False,
        )
        try:
            session = driver.connect()
            use_keyspace(session, cluster.keyspace)
        except Exception as exc:
            _check_datacenter(cluster, driver, exc)
            driver.shutdown()  # or its threads go on knocking
            raise
    return session


def close(session: Session) -> None:
    """End a session, its connections and threads."""
    session.cluster.shutdown()


def use_keyspace(session: Session, keyspace: str) -> None:
    """Make a keyspace the session's own, if it exists.

    The driver then knows which replicas hold a row, and can prepare a statement again when a node has forgotten it:
    it refuses that for a statement of another keyspace than the connection's.
    """
    # 0: take what the node knows now; waiting for agreement is the business of who changes the schema
    try:
        session.cluster.refresh_keyspace_metadata(keyspace, max_schema_agreement_wait=0)
    except DriverException as exc:  # it hides why: the node answered nothing in time, or went away
        raise OperationTimedOut({keyspace: "its replication could not be read"}) from exc
    if keyspace in session.cluster.metadata.keyspaces:
        session.set_keyspace(keyspace)


def _profile(cluster: Cluster, request_timeout: float) -> ExecutionProfile:
    return ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(local_dc=cluster.datacenter)),
        retry_policy=FallthroughRetryPolicy(),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        request_timeout=request_timeout,
    )


def _check_datacenter(cluster: Cluster, driver: Driver, exc: Exception) -> None:
    """The driver says "no host" when nodes answer but all of them are in other datacenters: name the real cause."""
    found = sorted({host.datacenter for host in driver.metadata.all_hosts() if host.datacenter})
    if isinstance(exc, NoHostAvailable) and found and cluster.datacenter not in found:
        driver.shutdown()
        raise PermanentStoreError(
            f"cluster {cluster.name}: expected nodes in datacenter {cluster.datacenter}, found {', '.join(found)}; "
            f"mend clusters.{cluster.name}.datacenter in the registry"
        ) from exc


def _login(cluster: Cluster) -> PlainTextAuthProvider | None:
    if cluster.credentials is None:
        return None
    return PlainTextAuthProvider(cluster.credentials.username, password(cluster.name, cluster.credentials))


def password(cluster: str, credentials: Credentials) -> str:
    """The password, from the environment variable or the file that the registry names.

    Raises:
        ConfigurationError: it is not there.
    """
    if credentials.password_file is not None:
        try:
            return credentials.password_file.read_text(encoding="utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"clusters.{cluster}.password_file: expected a readable text file at {credentials.password_file}, "
                f"got {error}; mend the path or its permissions"
            ) from error
    name = credentials.password_env or ""
    if found := os.environ.get(name):
        return found
    raise ConfigurationError(
        f"clusters.{cluster}.password_env: expected a password in the environment variable {name}, "
        f"found it {'empty' if name in os.environ else 'unset'}; set it"
    )


def tls_context(cluster: Cluster) -> ssl.SSLContext | None:
    """How to encrypt connections to a cluster; None for plain ones.

    Raises:
        ConfigurationError: a file is not where the registry says.
    """
    if cluster.tls is None:
        return None
    files = cluster.tls
    try:
        context = ssl.create_default_context(cafile=files.ca)
        context.check_hostname = files.verify_hostname
        if files.certificate is not None:
            context.load_cert_chain(files.certificate, files.key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigurationError(
            f"clusters.{cluster.name}.tls: expected readable PEM files at {_paths(files)}, got {error}; mend the paths"
        ) from error
    return context


def _paths(files: TlsFiles) -> str:
    return ", ".join(str(path) for path in (files.ca, files.certificate, files.key) if path is not None)


class _WithoutStackTrace(logging.Filter):
    """The driver logs a stack trace for every node that does not answer; one line says it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and (cause := record.exc_info[1]):
            record.msg, record.args = f"{record.getMessage().rstrip(':')}: {cause}", ()
            record.exc_info = record.exc_text = None
        # raised to the caller as well
        return not record.getMessage().startswith(("Control connection failed to connect", "Failed to authenticate"))


_without_stack_trace = _WithoutStackTrace()


def _drop_stack_traces() -> None:
    for name in ("cassandra.cluster", "cassandra.connection", "cassandra.pool"):
        logging.getLogger(name).addFilter(_without_stack_trace)
