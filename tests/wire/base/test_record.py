"""Records and operations survive JSON unchanged."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import pytest
from msgspec import Raw, field

from perdure.wire.base.errors import BadRequest, BadValue
from perdure.wire.base.fields import Header, Json, Limit, MaxItems, Name, Time, Value, ZonedTime, between, id_check
from perdure.wire.base.operation import Noun, Operation, client_form, marked, reply_type, server_form, validated
from perdure.wire.base.record import Record, derived, reader, to_json, writer

ID = "0190a5f2-7c1e-7b3a-9d55-0242ac120002"


class Thing(Record, frozen=True):
    name: str
    made_at_us: Time = field(name="made_at")
    local: ZonedTime | None = None
    left_at_us: Time | None = field(default=None, name="left_at")
    value: Value = None

    @derived
    def size(self) -> int:
        return len(self.name)


class Things(Record, frozen=True):
    things: list[Thing]
    first: Thing | None = None


class Plain(Record, frozen=True):
    name: str
    number: int = 1


THING = Thing("a", 5, datetime(2026, 6, 1, tzinfo=UTC), None, Raw(b"[1]"))


def test_times_are_rfc_3339_in_json_and_numbers_here() -> None:
    assert msgspec.json.decode(msgspec.json.encode(to_json(THING))) == {
        "name": "a",
        "made_at": "1970-01-01T00:00:00.000005+00:00",
        "size": 1,
        "local": "2026-06-01T00:00:00.000000+00:00",
        "left_at": None,
        "value": [1],
    }


@pytest.mark.parametrize("value", [THING, Things([THING, Thing("b", 6)]), Things([], THING), Plain("x")])
def test_a_record_comes_back_as_it_was(value: Record) -> None:
    twin = reader(type(value))
    assert twin(msgspec.json.decode(msgspec.json.encode(to_json(value)), type=twin.type)) == value


def test_a_record_that_json_shows_as_it_is_has_no_twin() -> None:
    assert writer(Plain) == reader(Plain) == (Plain, None)


things = Noun("Things")


@things.patch("/things/{thing_id}/parts/{part}", body="ThingChange")
class ChangeThing(Operation[Thing], frozen=True):
    """Change a thing."""

    thing_id: Annotated[str, id_check("thing")]
    part: str
    name: Name | None = None
    at: Time | None = None
    value: Json = None


@things.get("/things")
class ListThings(Operation[Things], frozen=True):
    before: Time | None = None
    tags: list[str] = field(default_factory=list)
    all: bool = False
    limit: Limit = 100
    count: Annotated[int, between(1, 5)] = 1


@things.delete("/things/{thing_id}")
class DeleteThing(Operation[None], frozen=True):
    thing_id: Annotated[str, id_check("thing")]


def test_an_operation_travels_in_path_query_and_body() -> None:
    how = client_form(ChangeThing)
    op = ChangeThing(ID, "a/b", name="n", at=5, value=Raw(b"null"))
    assert how.head(op) == f"/things/{ID}/parts/a%2Fb"
    assert how.body is not None
    body = msgspec.json.encode(how.body(op))
    assert body == b'{"name":"n","at":"1970-01-01T00:00:00.000005+00:00","value":null}'
    there = server_form(ChangeThing)
    assert there.make(ID, "a/b", msgspec.json.decode(body, type=there.body)) == op
    assert client_form(ListThings).head(ListThings()) == "/things", "what is left out is not sent"
    query = client_form(ListThings).head(ListThings(before=5, tags=["a", "b"], all=True))
    assert query == "/things?before=1970-01-01T00%3A00%3A00.000005%2B00%3A00&tags=a%2Cb&all=true"
    assert reply_type(DeleteThing) is type(None)
    assert ChangeThing.endpoint.name == "change_thing"


@things.put("/things/{thing_id}/memory", name="put_thing_memory", contract=True)
class PutMemory(Operation[None], frozen=True):
    thing_id: str
    text: str
    if_match: Annotated[str | None, Header("If-Match")] = None
    names: Annotated[list[str], MaxItems(3)] = field(default_factory=list)


def test_an_operation_has_fields_in_headers_and_its_own_name() -> None:
    there = server_form(PutMemory)
    assert there.headers == ("If-Match",)
    assert there.body is not None and "if_match" not in there.body.__struct_fields__
    body = msgspec.json.decode(b'{"text":"t","later":1}', type=there.body)
    assert there.make(ID, body, '"3"') == PutMemory(ID, "t", '"3"')
    assert client_form(PutMemory).headers == (("If-Match", "if_match"),)
    assert PutMemory.endpoint.name == "put_thing_memory"
    assert [(one.name, most.items) for one, most in marked(PutMemory, MaxItems)] == [("names", 3)]


def test_a_body_takes_only_its_own_fields() -> None:
    body = server_form(ChangeThing).body
    for wrong in (b'{"nam":"n"}', b'{"thing_id":"x"}'):
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            msgspec.json.decode(wrong, type=body)


def test_fields_are_checked_under_their_names() -> None:
    upper = ChangeThing(ID.upper(), "p")
    assert validated(upper) == ChangeThing(ID, "p"), "and kept as the store has them"
    with pytest.raises(BadRequest, match="'x' is not a thing id"):
        validated(DeleteThing("x"))
    with pytest.raises(BadValue, match="name: is empty"):
        validated(ChangeThing(ID, "p", name=""))
    with pytest.raises(BadRequest, match=r"query.count: must be 1 to 5, got 6"):
        validated(ListThings(count=6))
