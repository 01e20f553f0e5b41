"""What the CQL driver raises, told in our errors: the one place that decides what is worth trying again.

Transient is what the same request may survive later: overload, time-outs, nodes gone. Permanent is what needs a
person: access refused, a statement the server does not understand, a certificate that does not fit. Whatever is not
listed is permanent, because guessing that a surprise will pass hides it.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import cassandra
from cassandra import cluster as driver
from cassandra import connection, metadata, pool, protocol, query, segment

from eventstore.errors import EventstoreError, PermanentStoreError, StoreError, TransientStoreError

TRANSIENT: frozenset[type[Exception]] = frozenset({
    OSError,  # refused, reset, unreachable, timed out
    EOFError,
    # the replicas that would have to answer do not, for now
    cassandra.Unavailable,
    cassandra.Timeout,
    cassandra.ReadTimeout,
    cassandra.WriteTimeout,
    cassandra.OperationTimedOut,
    cassandra.CoordinationFailure,
    cassandra.ReadFailure,
    cassandra.WriteFailure,
    cassandra.CDCWriteFailure,  # its log is full until its consumer catches up
    cassandra.RateLimitReached,
    cassandra.UnresolvableContactPoints,  # name servers come and go with the network
    # the same, as the protocol's messages, which the driver raises when its retry policy rethrows
    protocol.UnavailableErrorMessage,
    protocol.WriteTimeoutErrorMessage,
    protocol.ReadTimeoutErrorMessage,
    protocol.WriteFailureMessage,
    protocol.ReadFailureMessage,
    protocol.CDCWriteException,
    protocol.RateLimitReachedException,
    protocol.OverloadedErrorMessage,
    protocol.IsBootstrappingErrorMessage,
    protocol.TruncateError,
    protocol.ServerError,  # an internal fault of one node, often while it starts or stops
    protocol.ClientWriteError,
    protocol.PreparedQueryNotFound,  # preparing it again mends that
    # the connection broke, or all of them are in use
    connection.ConnectionException,
    connection.ConnectionShutdown,
    connection.ConnectionBusy,
    connection.CrcMismatchException,
    segment.CrcException,
    pool.NoConnectionsAvailable,
})  # fmt: skip

PERMANENT: frozenset[type[Exception]] = frozenset({
    ssl.SSLCertVerificationError,
    cassandra.DriverException,
    cassandra.DependencyException,
    cassandra.UnsupportedOperation,
    cassandra.AuthenticationFailed,
    cassandra.RequestExecutionException,
    cassandra.FunctionFailure,
    cassandra.RequestValidationException,
    cassandra.ConfigurationException,
    cassandra.AlreadyExists,
    cassandra.InvalidRequest,
    cassandra.Unauthorized,
    protocol.ErrorMessage,
    protocol.ErrorMessageSub,
    protocol.RequestExecutionException,
    protocol.RequestValidationException,
    protocol.ProtocolException,
    protocol.BadCredentials,
    protocol.FunctionFailureMessage,
    protocol.SyntaxException,
    protocol.UnauthorizedErrorMessage,
    protocol.InvalidRequestException,
    protocol.ConfigurationException,
    protocol.AlreadyExistsException,
    protocol.NotSupportedError,
    protocol.InternalError,
    connection.ProtocolVersionUnsupported,
    connection.ProtocolError,
    driver.UserTypeDoesNotExist,
    driver.QueryExhausted,
    metadata.NoMurmur3,
    query.TraceUnavailable,
})  # fmt: skip

_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
"""The driver tells of it as of any socket's error, and keeps only the text."""
_NO_QUORUM_FOR_ROLES = "Unable to perform authentication"
"""Cassandra answers so when it cannot read its roles, not when the password is wrong."""


def store_error(exc: BaseException, cluster: str) -> StoreError:
    """The error to raise for what the driver raised while talking to `cluster`."""
    kind = TransientStoreError if is_transient(exc) else PermanentStoreError
    return kind(f"cluster {cluster}: {_said(exc)}; {_mend(exc, cluster)}")


def is_transient(exc: BaseException) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(exc, driver.NoHostAvailable):
        return all(is_transient(inner) for inner in _inner(exc))
    if isinstance(exc, cassandra.AuthenticationFailed):
        return _NO_QUORUM_FOR_ROLES in str(exc)
    if isinstance(exc, OSError) and _UNTRUSTED in str(exc):
        return False
    nearest = next((kind for kind in type(exc).__mro__ if kind in TRANSIENT or kind in PERMANENT), None)
    return nearest in TRANSIENT


@contextmanager
def mapped(cluster: str) -> Iterator[None]:
    """Raise what the driver raises inside as a StoreError of `cluster`; our own errors pass."""
    try:
        yield
    except EventstoreError:
        raise
    except Exception as exc:
        raise store_error(exc, cluster) from exc


def _inner(exc: Exception) -> list[BaseException]:
    errors = getattr(exc, "errors", None)
    return list(errors.values()) if isinstance(errors, dict) else []


def _said(exc: BaseException) -> str:
    if isinstance(exc, driver.NoHostAvailable):
        errors = exc.errors if isinstance(exc.errors, dict) else {}
        return "no node answers" + "".join(f"; {host}: {_said(inner)}" for host, inner in errors.items())
    text = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _mend(exc: BaseException, cluster: str) -> str:
    section = f"clusters.{cluster} in the registry"
    causes = [exc, *_inner(exc)] if isinstance(exc, Exception) else [exc]
    if any(isinstance(cause, cassandra.AuthenticationFailed | protocol.BadCredentials) for cause in causes):
        return f"mend username, password_env or password_file of {section}"
    if any(isinstance(cause, cassandra.Unauthorized | protocol.UnauthorizedErrorMessage) for cause in causes):
        return f"grant the user of {section} access to its keyspace"
    if any(isinstance(cause, ssl.SSLError) or _UNTRUSTED in str(cause) for cause in causes):
        return f"mend tls of {section}"
    if isinstance(exc, driver.NoHostAvailable | cassandra.UnresolvableContactPoints):
        return f"check that its nodes run and that contact_points and port of {section} name them"
    if is_transient(exc):
        return "the same request may succeed later"
    return "retrying cannot help: check `eventstore schema check` and the server's log"
