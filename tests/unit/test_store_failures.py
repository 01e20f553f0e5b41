"""Every exception of the CQL driver, and every error code of the protocol, is told as transient or permanent."""

import importlib
import inspect
import pkgutil
import ssl
from collections.abc import Iterator
from struct import pack

import cassandra
import pytest
from cassandra import connection, protocol
from cassandra.cluster import NoHostAvailable
from cassandra.protocol_features import ProtocolFeatures

from eventstore.errors import PermanentStoreError, RefusedError, TransientStoreError
from eventstore.store.failures import PERMANENT, TRANSIENT, mapped, store_error
from eventstore.store.lane import frames

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


def text(of: str) -> bytes:
    return pack(">H", len(of)) + of.encode()


QUORUM = 6
CODES: dict[int, tuple[type[Exception], bytes]] = {
    # section 9 of the protocol's specification, v4 and v5: the code, what it means to us, and what follows the message
    0x0000: (TransientStoreError, b""),  # server error
    0x000A: (PermanentStoreError, b""),  # protocol error
    0x0100: (PermanentStoreError, b""),  # bad credentials
    0x1000: (TransientStoreError, pack(">Hii", QUORUM, 2, 1)),  # unavailable
    0x1001: (TransientStoreError, b""),  # overloaded
    0x1002: (TransientStoreError, b""),  # bootstrapping
    0x1003: (TransientStoreError, b""),  # truncate error
    0x1100: (TransientStoreError, pack(">Hii", QUORUM, 1, 2) + text("UNLOGGED_BATCH")),  # write timeout
    0x1200: (TransientStoreError, pack(">HiiB", QUORUM, 1, 2, 1)),  # read timeout
    0x1300: (TransientStoreError, pack(">HiiiB", QUORUM, 1, 2, 1, 1)),  # read failure
    0x1400: (PermanentStoreError, text("ks") + text("f") + pack(">H", 1) + text("int")),  # function failure
    0x1500: (TransientStoreError, pack(">Hiii", QUORUM, 1, 2, 1) + text("SIMPLE")),  # write failure
    0x1600: (TransientStoreError, b""),  # CDC write failure
    0x1700: (PermanentStoreError, pack(">Hii", QUORUM, 1, 2)),  # CAS write unknown: of LWT, which we do not use
    0x2000: (PermanentStoreError, b""),  # syntax error
    0x2100: (PermanentStoreError, b""),  # unauthorized
    0x2200: (PermanentStoreError, b""),  # invalid
    0x2300: (PermanentStoreError, b""),  # configuration error
    0x2400: (PermanentStoreError, text("ks") + text("t")),  # already exists
    0x2500: (TransientStoreError, pack(">H", 16) + b"i" * 16),  # unprepared
    # the driver's own
    0x8000: (TransientStoreError, b""),  # client write error
    0x4321: (TransientStoreError, pack(">BB", 0, 1)),  # ScyllaDB's rate limit, by the driver's stand-in for its code
    0x7ABC: (PermanentStoreError, b""),  # a code of the future
}


def answered(code: int, details: bytes = b"") -> frames.Answer:
    return frames.Answer(0, 1, frames.Opcode.ERROR, pack(">i", code) + text("no") + details)


def test_every_error_code_that_the_driver_knows_is_walked() -> None:
    assert set(protocol.error_classes) <= set(CODES)


@pytest.mark.parametrize("code", CODES, ids=hex)
def test_every_error_code_of_the_protocol_is_mapped_on_purpose(code: int) -> None:
    expected, details = CODES[code]
    told = store_error(frames.error(answered(code, details), ProtocolFeatures()).to_exception(), "c")
    assert type(told) is expected
    assert "\n" not in str(told)


def test_the_rate_limit_is_transient_under_the_code_that_the_node_has_chosen() -> None:
    features = ProtocolFeatures(rate_limit_error=0xF000)
    told = frames.error(answered(0xF000, pack(">BB", 1, 1)), features)
    assert isinstance(store_error(told.to_exception(), "c"), TransientStoreError)


@pytest.mark.parametrize("code", CODES, ids=hex)
def test_an_error_that_cannot_be_read_is_the_nodes_fault_and_not_ours(code: int) -> None:
    whole = answered(code, CODES[code][1]).body
    for end in range(len(whole)):
        cut = frames.Answer(0, 1, frames.Opcode.ERROR, whole[:end])
        try:
            frames.error(cut, ProtocolFeatures())
        except connection.ProtocolError as garbled:
            assert "expected an error of CQL protocol v4" in str(garbled)  # noqa: PT017 — some cuts can be read


def test_a_kind_of_write_that_the_driver_has_not_heard_of_is_no_bug_of_ours() -> None:
    with pytest.raises(connection.ProtocolError):
        frames.error(answered(0x1100, pack(">Hii", QUORUM, 1, 2) + text("PAXOS_REPAIR")), ProtocolFeatures())


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
