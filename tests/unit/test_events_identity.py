from uuid import UUID

import pytest

from eventstore.events import Coordinates, SchemaInvalidError, compile_schema, event_id
from eventstore.events.identity import derived_message_id, uuid_bytes
from eventstore.events.reject import Reason, Rejected

pytestmark = pytest.mark.unit

HERE = Coordinates("events", 3, 1234)
CANONICAL = "0199b2f4-1d7c-7c3e-8a51-0d3f9e6b2c4a"


def eid(tenant: str = "shop", message_id: str | None = None, at: Coordinates = HERE) -> bytes:
    return event_id(tenant, message_id, lambda: at)


@pytest.mark.parametrize("text", [CANONICAL, CANONICAL.upper()])
def test_a_message_id_that_is_a_uuid_is_the_identity(text: str) -> None:
    assert eid(message_id=text) == UUID(CANONICAL).bytes


@pytest.mark.parametrize(
    "text",
    [
        CANONICAL.replace("-", ""),
        f"{{{CANONICAL}}}",
        f"urn:uuid:{CANONICAL}",
        CANONICAL.replace("b2f4", "b2 4"),
        CANONICAL.replace("b2f4", "b2g4"),
        CANONICAL[:8] + "0" + CANONICAL[9:],
        CANONICAL[:-1] + "é",
        "  " + CANONICAL[2:],
        "",
    ],
)
def test_other_spellings_of_a_uuid_are_texts_like_any_other(text: str) -> None:
    assert uuid_bytes(text) is None


def test_another_payload_under_the_same_message_id_is_the_same_event() -> None:
    assert eid(message_id="order-7") == eid(message_id="order-7", at=Coordinates("other", 0, 0))


def test_two_tenants_may_use_the_same_message_id() -> None:
    assert eid("shop", "order-7") != eid("forum", "order-7")


@pytest.mark.parametrize("message_id", [None, ""])
def test_without_a_message_id_the_place_is_the_identity(message_id: str | None) -> None:
    assert eid(message_id=message_id) == eid(message_id=message_id)
    places = [HERE, HERE._replace(topic="other"), HERE._replace(partition=4), HERE._replace(offset=1235)]
    assert len({eid(message_id=message_id, at=place) for place in places}) == len(places)


def test_an_identity_never_changes_between_versions() -> None:
    assert UUID(bytes=eid(message_id="order-7")) == UUID("e31b7ef3-57f9-85f4-9d0e-2b8e487d2b2b")
    assert UUID(bytes=eid()) == UUID("eec3f075-4ffc-88b3-ad8f-4b79992c1f59")
    assert derived_message_id(b'{"a":1}', 1) == "24700655-196a-8d22-9bce-210bc7581074"


def test_hashed_identities_are_version_8_uuids() -> None:
    for raw in (eid(), eid(message_id="order-7"), UUID(derived_message_id(b"{}", 1)).bytes):
        assert UUID(bytes=raw).version == 8


def test_coordinates_are_written_as_a_path() -> None:
    assert str(HERE) == "events/3/1234"


def test_a_document_that_is_no_schema_is_refused() -> None:
    with pytest.raises(SchemaInvalidError, match="nonsense"):
        compile_schema({"type": "nonsense"})


def test_a_pattern_that_cannot_be_compiled_is_refused() -> None:
    with pytest.raises(SchemaInvalidError):
        compile_schema({"properties": {"a": {"pattern": "("}}})


def test_properties_that_no_parser_reads_are_malformed() -> None:
    found = compile_schema({"type": "object"}).check(rb'{"a":"\ud800"}')
    assert isinstance(found, Rejected)
    assert found.reason is Reason.MALFORMED
