"""The route table by itself: what a signature says, which path finds which route, what a query may hold."""

import re
from typing import Any, Literal

import msgspec
import pytest
from msgspec import Struct

from perdure.server.access.auth import Gate
from perdure.server.app import all_routes
from perdure.server.http.bodies import read_body
from perdure.server.http.openapi import document
from perdure.server.http.router import Router
from perdure.server.http.routing import RouteCall, Routes, ServerServices
from perdure.server.process.settings import Settings
from perdure.wire.base.access import Role
from perdure.wire.base.errors import BadRequest, NotFound, PerdureError
from perdure.wire.base.fields import Moment, Position


class Query(Struct, frozen=True):
    needed: str
    number: int = 1
    share: float = 0.5
    flag: bool = False
    many: list[str] | None = None
    word: Literal["a", "b"] = "a"
    after: Position = 0
    at: Moment | None = None
    """When."""


class Body(Struct, frozen=True):
    value: int


class Answer(Struct, frozen=True):
    value: int
    name: str | None = None


routes = Routes("Things")


@routes.get("/things/{thing}", contract=True)
async def get_thing(call: RouteCall, thing: str, query: Query) -> Answer:
    """Get a thing.

    At length.
    """
    return Answer(query.number)


@routes.post("/things/{thing}", idempotent=True)
async def put_thing(call: RouteCall, thing: str, body: Body) -> Answer:
    """Put a thing."""
    return Answer(body.value)


@routes.get("/things/special")
async def special(call: RouteCall, query: Query) -> Answer:
    """Get the special one."""
    return Answer(0)


@routes.delete("/things/{thing}/parts/{part}", role=Role.ADMIN)
async def delete_part(call: RouteCall, thing: str, part: str) -> None:
    """Delete a part."""


@routes.get("/notes/{owner}/{note}", rest=True)
async def get_note(call: RouteCall, owner: str, note: str) -> Answer:
    """Get a note."""
    return Answer(0)


@routes.post("/notes/{owner}/{note}/send", rest=True)
async def send_note(call: RouteCall, owner: str, note: str) -> Answer:
    """Send a note."""
    return Answer(0)


@routes.post("/letters/{letter}/send", rest=True)
async def send_letter(call: RouteCall, letter: str) -> Answer:
    """Send a letter."""
    return Answer(0)


def make_router() -> Router:
    async def nobody(key: str) -> Any:
        raise AssertionError

    return Router(ServerServices(None, Settings(), Gate(nobody)), routes.all)  # type: ignore[arg-type]  # no engine is asked


def find(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    route, values = make_router()._find({"method": method, "raw_path": path.encode()})
    return route.name, values


def test_a_path_finds_its_route() -> None:
    assert find("GET", "/things/1") == ("get_thing", ("1",))
    assert find("HEAD", "/things/1") == ("get_thing", ("1",))
    assert find("POST", "/things/1") == ("put_thing", ("1",))
    assert find("GET", "/things/special") == ("special", ())
    assert find("GET", "/things/sp%65cial") == ("special", ())
    assert find("DELETE", "/things/a%2Fb/parts/%E6%97%A5") == ("delete_part", ("a/b", "日"))
    assert find("DELETE", "/things/special/parts/1") == ("delete_part", ("special", "1"))


def test_a_name_that_takes_the_rest_has_slashes() -> None:
    for note in ("a", "a/b c", "/a", "a/", "a//b", "send/a"):
        assert find("GET", f"/notes/me/{note}") == ("get_note", ("me", note))
        assert find("POST", f"/notes/me/{note}/send") == ("send_note", ("me", note))
        assert find("POST", f"/letters/{note}/send") == ("send_letter", (note,))
    assert find("POST", "/notes/me/a%2Fsend/send") == ("send_note", ("me", "a/send"))
    for method in ("GET", "HEAD"):
        assert find(method, "/notes/me/a/send") == ("get_note", ("me", "a/send")), "it may end like that"
    with pytest.raises(PerdureError, match="use POST"):
        find("PUT", "/notes/me/a/send")
    with pytest.raises(PerdureError, match="use GET"):
        find("POST", "/notes/me/send")
    for path in ("/notes/me", "/notes/me/", "/letters/a", "/letters/send", "/letters//send"):
        with pytest.raises(NotFound):
            find("POST", path)


@pytest.mark.parametrize("path", ["", "/", "/things", "/things/", "/things//parts/1", "/things/1/parts", "/thingsx/1"])
def test_a_path_finds_nothing(path: str) -> None:
    with pytest.raises(NotFound):
        find("GET", path)


def test_a_path_is_utf_8() -> None:
    with pytest.raises(BadRequest):
        find("GET", "/things/%ff")


def test_a_path_says_which_methods_it_has() -> None:
    with pytest.raises(PerdureError, match="use GET or POST or HEAD"):
        find("PUT", "/things/1")
    with pytest.raises(PerdureError, match="use DELETE"):
        find("GET", "/things/1/parts/2")


def decode(query: bytes, route: int = 0) -> Any:
    return routes.all[route].decode_query(query)


def test_a_query_is_its_struct() -> None:
    assert decode(b"needed=a%20b+c&number=-7&share=1e-3&flag=true&many=x&many=y,z&word=b&after=9") == Query(
        "a b c", -7, 0.001, True, ["x", "y", "z"], "b", 9
    )
    assert decode(b"needed=").needed == ""
    assert decode(b"needed=x&at=2025-01-01T00:00:00%2B02:00").at.utcoffset().total_seconds() == 7200
    assert decode("needed=é".encode().decode("latin-1").encode("ascii", "ignore")) == Query("")
    assert decode(b"needed=1&unknown=2") == Query("1")


@pytest.mark.parametrize(
    ("query", "name"),
    [
        (b"", "needed"),
        (b"needed=1&number=x", "number"),
        (b"needed=1&number=1.5", "number"),
        (b"needed=1&number=", "number"),
        (b"needed=1&flag=maybe", "flag"),
        (b"needed=1&word=c", "word"),
        (b"needed=1&after=-1", "after"),
        (b"needed=1&after=9223372036854775808", "after"),
        (b"needed=1&at=2025-01-01", "at"),
        (b"needed=1&at=2025-01-01T00:00:00", "at"),
        (b"needed=1&needed=2", "needed"),
        (b"needed=%ff", "query"),
        (b"needed=\xc3\xa9", "query"),
        (b"&".join(b"n%d=1" % n for n in range(200)), "query"),
    ],
)
def test_a_bad_query_names_what_is_wrong(query: bytes, name: str) -> None:
    with pytest.raises(BadRequest, match=name):
        decode(query)


def test_only_contract_routes_ignore_what_they_do_not_know() -> None:
    with pytest.raises(BadRequest, match="unknown"):
        decode(b"needed=1&unknown=2", route=2)


def test_a_handler_must_take_what_its_path_gives() -> None:
    wrong = Routes("Wrong")
    with pytest.raises(TypeError, match="takes"):

        @wrong.get("/a/{b}")
        async def handler(call: RouteCall, c: str) -> Answer:
            """Wrong."""
            return Answer(1)


def test_the_document_says_what_the_signatures_say() -> None:
    doc = document(routes.all, version="1")
    get = doc["paths"]["/things/{thing}"]["get"]
    assert (get["summary"], get["description"], get["operationId"]) == ("Get a thing", "At length.", "get_thing")
    parameters = {one["name"]: one for one in get["parameters"]}
    assert parameters["needed"]["required"] and not parameters["number"]["required"]
    assert parameters["number"]["schema"] == {"type": "integer", "default": 1}
    assert parameters["many"]["schema"] == {"type": "array", "items": {"type": "string"}}
    assert parameters["word"]["schema"] == {"enum": ["a", "b"], "default": "a"}
    assert parameters["at"]["schema"] == {"type": "string", "format": "date-time"}
    assert parameters["at"]["description"] == "When."
    assert parameters["after"]["schema"]["minimum"] == 0
    post = doc["paths"]["/things/{thing}"]["post"]
    assert "Idempotency-Key" in {one["name"] for one in post["parameters"]}
    assert post["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Body"}
    assert {"413", "415", "422"} <= set(post["responses"])
    assert "204" in doc["paths"]["/things/{thing}/parts/{part}"]["delete"]["responses"]
    assert doc["components"]["schemas"]["Answer"] == {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "name": {"type": ["string", "null"]}},
        "required": ["value"],
    }


async def test_a_body_is_counted_while_it_comes() -> None:
    asked = 0

    async def receive() -> Any:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x" * 10, "more_body": True}

    with pytest.raises(PerdureError, match="more than 100 bytes"):
        await read_body(receive, {}, 100, lambda size: None)
    assert asked == 11
    with pytest.raises(PerdureError, match="more than 100 bytes"):
        await read_body(receive, {b"content-length": b"101"}, 100, lambda size: None)
    assert asked == 11


def test_no_two_routes_share_a_place_or_a_name() -> None:
    table = all_routes()
    places = [(route.method, re.sub(r"\{\w+\}", "{}", route.path)) for route in table]
    assert len(set(places)) == len(places)
    assert len({route.name for route in table}) == len(table)


def test_added_bodies_refuse_unknown_fields_and_contract_ones_do_not() -> None:
    for route in all_routes():
        if route.body_type is not None:
            config = route.body_type.__struct_config__
            assert config.forbid_unknown_fields is not route.contract, route.path
            assert msgspec.structs.fields(route.body_type)
