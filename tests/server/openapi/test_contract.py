"""The routes' document, compared with the contract (tests/contract/openapi.json), entry by entry.

Nothing of the contract may be missing or changed: paths, methods, names of operations and schemas, parameters, fields,
types, formats, nullability and required fields. The document may have more.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from perdure.server.app import all_routes
from perdure.server.http import openapi

NOT_YET: dict[str, str] = {}
"""Paths of the contract that are not served, with reasons. A served path must go."""

OTHERWISE = {
    "reply[].id: has the format 'uuid', here None": (
        "get_api_keys",
        "a key's id is the eight characters that it shows",
    ),
    "reply.id: has the format 'uuid', here None": (
        "create_api_key",
        "a key's id is the eight characters that it shows",
    ),
}
"""Deliberate differences by operation, with reasons."""

STRICTER = "/api/v1/approvals/"
"""Paths that may ask more of the caller than the contract does."""

Json = Any


@cache
def contract() -> Json:
    return json.loads((Path(__file__).parents[2] / "contract" / "openapi.json").read_text(encoding="utf-8"))


@cache
def ours() -> Json:
    return json.loads(json.dumps(openapi.document(all_routes(), version="1")))


SERVED = [(path, method) for path, methods in contract()["paths"].items() if path not in NOT_YET for method in methods]


class Schema:
    """A schema in one manner, whatever the writing: `"type": ["string", "null"]`, `anyOf` with null, a reference."""

    def __init__(self, document: Json, written: Json) -> None:
        self._document = document
        self.nullable = False
        self.name: str | None = None
        choices = written.get("anyOf") or written.get("oneOf")
        if choices is not None:
            self.nullable = {"type": "null"} in choices
            others = [choice for choice in choices if choice != {"type": "null"}]
            written = others[0] if len(others) == 1 else written
        if "$ref" in written:
            self.name = written["$ref"].rpartition("/")[2]
            written = document["components"]["schemas"][self.name]
        self.written = written
        kinds = written.get("type")
        if kinds is None and "enum" in written:
            kinds = ["string"] if all(isinstance(value, str) for value in written["enum"]) else None
        kinds = [] if kinds is None else [kinds] if isinstance(kinds, str) else kinds
        self.nullable = self.nullable or "null" in kinds
        self.kinds = {kind for kind in kinds if kind != "null"}
        """No kind: any value."""

    @property
    def fields(self) -> dict[str, "Schema"]:
        return {name: Schema(self._document, one) for name, one in self.written.get("properties", {}).items()}

    @property
    def required(self) -> set[str]:
        return set(self.written.get("required", ()))

    @property
    def items(self) -> "Schema | None":
        items = self.written.get("items")
        return None if items is None else Schema(self._document, items)


def differences(
    where: str, theirs: Schema, mine: Schema, *, request: bool, seen: frozenset[str] = frozenset()
) -> Iterator[str]:
    """The parts of the contract's schema that ours lacks or changes."""
    if theirs.name is not None:
        if mine.name != theirs.name:
            yield f"{where}: is {theirs.name}, here {mine.name}"
        if theirs.name in seen:
            return
        seen |= {theirs.name}
    if mine.kinds != theirs.kinds:
        yield f"{where}: has the type {theirs.kinds or 'any'}, here {mine.kinds or 'any'}"
    if mine.nullable is not theirs.nullable and theirs.kinds:
        yield f"{where}: {'may' if theirs.nullable else 'may not'} be null"
    for word in ("format", "default"):
        if word in theirs.written and mine.written.get(word) != theirs.written[word]:
            yield f"{where}: has the {word} {theirs.written[word]!r}, here {mine.written.get(word)!r}"
    fields = mine.fields
    for name, field in theirs.fields.items():
        if name not in fields:
            yield f"{where}.{name}: is missing"
        else:
            yield from differences(f"{where}.{name}", field, fields[name], request=request, seen=seen)
    if theirs.fields and mine.required & set(theirs.fields) != theirs.required:
        yield f"{where}: requires {sorted(theirs.required)}, here {sorted(mine.required & set(theirs.fields))}"
    if request and mine.required - set(theirs.fields):
        yield f"{where}: requires more than the contract: {sorted(mine.required - set(theirs.fields))}"
    if request and mine.written.get("additionalProperties") is False:
        yield f"{where}: refuses fields that it does not know"
    if theirs.items is not None:
        if mine.items is None:
            yield f"{where}: has no items"
        else:
            yield from differences(f"{where}[]", theirs.items, mine.items, request=request, seen=seen)


def operation_differences(path: str, theirs: Json, mine: Json) -> Iterator[str]:
    """The parts of an operation of the contract that ours lacks or changes."""
    if mine["operationId"] != theirs["operationId"]:
        yield f"is called {theirs['operationId']}, here {mine['operationId']}"
    known = {(one["in"], one["name"]): one for one in mine.get("parameters", ())}
    for written in theirs.get("parameters", ()):
        parameter = _parameter(contract(), written)
        where = f"{parameter['in']} {parameter['name']}"
        here = known.get((parameter["in"], parameter["name"]))
        if here is None:
            if parameter["in"] != "header" or mine["security"]:  # without a key there is no project to repeat
                yield f"{where}: is missing"
            continue
        wanted = parameter["required"] and parameter["in"] != "header"
        if here["required"] is not wanted:
            yield f"{where}: {'is' if wanted else 'is not'} required"
        yield from differences(
            where, Schema(contract(), parameter["schema"]), Schema(ours(), here["schema"]), request=True
        )
    written = [_parameter(contract(), one) for one in theirs.get("parameters", ())]
    given = {(one["in"], one["name"]) for one in written}
    for place, name in known.keys() - given:
        if known[place, name]["required"]:
            yield f"{place} {name}: is required, and not known to the contract"
    yield from _body_differences("body", theirs.get("requestBody"), mine.get("requestBody"), request=True)
    for status, response in theirs["responses"].items():
        if status.startswith("2"):
            if status not in mine["responses"]:
                yield f"answers {status}, here {sorted(mine['responses'])}"
            else:
                yield from _body_differences("reply", response, mine["responses"][status], request=False)
    if bool(theirs["security"]) is not bool(mine["security"]) and not path.startswith(STRICTER):
        yield f"{'needs' if theirs['security'] else 'needs no'} credentials"


def _body_differences(where: str, theirs: Json, mine: Json, *, request: bool) -> Iterator[str]:
    content = {} if theirs is None else theirs.get("content", {})
    if request and not content and (mine or {}).get("required"):
        yield f"{where}: is asked for, and not known to the contract"
    for kind, one in content.items():
        here = (mine or {}).get("content", {}).get(kind)
        if here is None:
            yield f"{where}: no {kind}"
        else:
            mine_schema, their_schema = Schema(ours(), here["schema"]), Schema(contract(), one["schema"])
            yield from differences(where, their_schema, mine_schema, request=request)


def _parameter(document: Json, written: Json) -> Json:
    if "$ref" not in written:
        return written
    return document["components"]["parameters"][written["$ref"].rpartition("/")[2]]


@pytest.mark.parametrize(("path", "method"), SERVED, ids=lambda value: value)
def test_an_operation_is_what_the_contract_says(path: str, method: str) -> None:
    assert path in ours()["paths"], "it is not served, and not among those that wait"
    assert method in ours()["paths"][path]
    theirs, mine = contract()["paths"][path][method], ours()["paths"][path][method]
    found = list(operation_differences(path, theirs, mine))
    assert [one for one in found if OTHERWISE.get(one, ("",))[0] != theirs["operationId"]] == []


def test_what_is_not_served_yet_is_not_served() -> None:
    """A newly served route must leave the list, to be compared."""
    assert set(NOT_YET) <= set(contract()["paths"])
    assert sorted(set(NOT_YET) & set(ours()["paths"])) == []


def test_no_route_needs_a_projects_header() -> None:
    for path, methods in ours()["paths"].items():
        for method, operation in methods.items():
            for parameter in operation.get("parameters", ()):
                wanted = parameter["name"].lower() not in ("x-project-id", "project-id")
                assert wanted or parameter["required"] is False, (method, path)


def test_every_error_has_the_contracts_one_shape() -> None:
    theirs, mine = (
        Schema(document, {"$ref": "#/components/schemas/ErrorResponse"}) for document in (contract(), ours())
    )
    assert list(differences("ErrorResponse", theirs, mine, request=False)) == []
    for methods in ours()["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if status[0] in "45":
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorResponse"}


# --- the comparison itself -------------------------------------------------------------------------------------------

BASE: Json = {
    "type": "object",
    "required": ["a"],
    "properties": {"a": {"type": "string"}, "b": {"type": ["integer", "null"], "format": "int32"}, "c": {}},
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"properties": {**BASE["properties"], "more": {"type": "string"}}}, ""),
        ({"properties": {"a": {"type": "string"}, "c": {}}}, "x.b: is missing"),
        ({"properties": {**BASE["properties"], "a": {"type": "integer"}}}, "x.a: has the type"),
        ({"properties": {**BASE["properties"], "a": {"type": ["string", "null"]}}}, "x.a: may not be null"),
        ({"properties": {**BASE["properties"], "b": {"type": "integer", "format": "int32"}}}, "x.b: may be null"),
        ({"properties": {**BASE["properties"], "b": {"type": ["integer", "null"]}}}, "x.b: has the format"),
        ({"properties": {**BASE["properties"], "c": {"type": "string"}}}, "x.c: has the type any"),
        ({"required": ["a", "b"]}, "x: requires ['a'], here ['a', 'b']"),
        ({"required": []}, "x: requires ['a'], here []"),
        ({"additionalProperties": False}, "x: refuses fields"),
        (
            {"properties": {**BASE["properties"], "more": {"type": "string"}}, "required": ["a", "more"]},
            "x: requires more than the contract: ['more']",
        ),
    ],
)
def test_a_change_is_noticed(change: Json, says: str) -> None:
    found = list(differences("x", Schema({}, BASE), Schema({}, {**BASE, **change}), request=True))
    assert len(found) == bool(says)
    assert all(says in one for one in found)
