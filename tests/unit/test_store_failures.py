"""Every exception of the CQL driver is told as transient or permanent."""

import importlib
import inspect
import pkgutil
import ssl
from collections.abc import Iterator

import cassandra
import pytest
from cassandra import connection, protocol
from cassandra.cluster import NoHostAvailable

from eventstore.errors import PermanentStoreError, RefusedError, TransientStoreError
from eventstore.store.failures import PERMANENT, TRANSIENT, mapped, store_error

pytestmark = pytest.mark.unit

NOT_OURS = ("cassandra.cqlengine", "cassandra.datastax", "cassandra.graph", "cassandra.scylla", "cassandra.io")
"""Parts of the driver that Eventstore does not load, or that need other event loops."""
DECIDED_BY_WHAT_IT_HOLDS = {NoHostAvailable}


def driver_exceptions() -> Iterator[type[Exception]]:
    names = [found.name for found in pkgutil.walk_packages(cassandra.__path__, "cassandra.")]
    for name in ["cassandra", *(name for name in names if not name.startswith(NOT_OURS))]:
        try:
            module = importlib.import_module(name)
        except (ImportError, SystemError):  # an optional extra that is not installed
            continue
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Exception) and kind.__module__ == name:
                yield kind


def test_every_exception_class_of_the_driver_is_mapped() -> None:
    found = set(driver_exceptions())
    assert len(found) > 50, "the walk has lost its way"
    assert found - TRANSIENT - PERMANENT - DECIDED_BY_WHAT_IT_HOLDS == set()


def test_no_class_is_both_transient_and_permanent() -> None:
    assert not TRANSIENT & PERMANENT


@pytest.mark.parametrize(
    "exc",
    [
        protocol.OverloadedErrorMessage(0x1001, "busy", None),
        protocol.IsBootstrappingErrorMessage(0x1002, "starting", None),
        cassandra.Unavailable("not enough replicas", consistency=6, required_replicas=2, alive_replicas=1),
        cassandra.WriteTimeout("late", consistency=6, received_responses=1, required_responses=2, write_type=0),
        cassandra.OperationTimedOut(),
        cassandra.RateLimitReached(op_type=cassandra.OperationType.Write),
        connection.ConnectionShutdown("gone"),
        ConnectionResetError("reset"),
        TimeoutError(),
        NoHostAvailable("nobody", {"10.0.0.1:9042": ConnectionRefusedError("refused")}),
        NoHostAvailable("nobody", {}),
        cassandra.AuthenticationFailed("Unable to perform authentication: Cannot achieve consistency level QUORUM"),
    ],
)
def test_overload_time_outs_and_lost_nodes_are_transient(exc: Exception) -> None:
    assert isinstance(store_error(exc, "c"), TransientStoreError)


@pytest.mark.parametrize(
    "exc",
    [
        protocol.SyntaxException(0x2000, "line 1:0", None),
        cassandra.InvalidRequest("no such column"),
        cassandra.Unauthorized("no"),
        cassandra.AuthenticationFailed("Provided username x and/or password are incorrect"),
        connection.ProtocolVersionUnsupported(None, 4),
        ssl.SSLCertVerificationError("self-signed certificate"),
        NoHostAvailable("nobody", {"a": ConnectionRefusedError(), "b": cassandra.AuthenticationFailed("wrong")}),
        ZeroDivisionError("our own bug"),
    ],
)
def test_refusals_and_surprises_are_permanent(exc: Exception) -> None:
    assert isinstance(store_error(exc, "c"), PermanentStoreError)


def test_the_message_is_one_line_that_names_the_cluster_what_came_and_the_mend() -> None:
    wrong = cassandra.AuthenticationFailed("Failed to\nauthenticate")
    message = str(store_error(NoHostAvailable("nobody", {"10.0.0.1:9042": wrong}), "c15"))
    assert message == (
        "cluster c15: no node answers; 10.0.0.1:9042: AuthenticationFailed: Failed to authenticate; "
        "mend username, password_env or password_file of clusters.c15 in the registry"
    )


def test_mapped_lets_our_own_errors_pass_and_keeps_the_cause() -> None:
    own = RefusedError("not so")
    with pytest.raises(RefusedError) as passed, mapped("c"):
        raise own
    assert passed.value is own
    cause = cassandra.InvalidRequest("no such table")
    with pytest.raises(PermanentStoreError) as told, mapped("c"):
        raise cause
    assert told.value.__cause__ is cause
