"""What a fresh connection says before it carries batches or reads."""

import asyncio
from collections.abc import Mapping
from typing import Final

import cassandra
from cassandra.protocol import BadCredentials
from cassandra.protocol_features import RATE_LIMIT_ERROR_EXTENSION, TABLETS_ROUTING_V1, ProtocolFeatures

from eventstore.store.lane import frames
from eventstore.store.lane.frames import Opcode
from eventstore.store.lane.line import Line
from eventstore.store.session import password
from eventstore.store.statements import statement_in
from eventstore.tenancy import Cluster

CQL_VERSION: Final = "3.0.0"


async def greet(line: Line) -> ProtocolFeatures:
    """Ask a node what it can do: whether it has shards, and which one this connection reached."""
    answer = await line.ask(Opcode.OPTIONS, b"")
    return ProtocolFeatures.parse_from_supported(frames.supported(frames.content(answer).body))


async def start(line: Line, cluster: Cluster, features: ProtocolFeatures) -> None:
    """Start the session and prove who we are.

    Raises:
        cassandra.AuthenticationFailed: the node wants a login that the registry does not give, or another one.
    """
    line.features = features
    answer = await line.ask(Opcode.STARTUP, frames.startup(_options(features)))
    if answer.opcode == Opcode.READY:
        return
    if cluster.credentials is None:
        raise cassandra.AuthenticationFailed(f"{line.node} asks for a login and the registry names no username")
    login = frames.credentials(cluster.credentials.username, password(cluster.name, cluster.credentials))
    try:
        answer = await line.ask(Opcode.AUTH_RESPONSE, login)
    except BadCredentials as refused:  # as the driver tells it: a quorum for the roles may be all that is missing
        raise cassandra.AuthenticationFailed(f"{line.node} refused the login: {refused}") from refused
    if answer.opcode != Opcode.AUTH_SUCCESS:
        raise cassandra.AuthenticationFailed(f"{line.node} asks for more than a password")


async def prepare(line: Line, keyspace: str) -> None:
    """Prepare the statements of its kind, all at once; the line is ready then."""
    ids = await asyncio.gather(*(_prepared(line, statement_in(keyspace, name)) for name in line.statements))
    line.ready_with(dict(zip(line.statements, ids, strict=True)))


async def _prepared(line: Line, statement: str) -> bytes:
    answer = await line.ask(Opcode.PREPARE, frames.prepare(statement))
    return frames.prepared_id(frames.content(answer).body)


def _options(features: ProtocolFeatures) -> Mapping[str, str]:
    options = {"CQL_VERSION": CQL_VERSION, "DRIVER_NAME": "eventstore"}
    if features.tablets_routing_v1:
        options[TABLETS_ROUTING_V1] = ""
    if features.rate_limit_error is not None:  # or a limited partition answers with a code that means a broken setting
        options[RATE_LIMIT_ERROR_EXTENSION] = ""
    return options
