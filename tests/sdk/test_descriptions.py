"""Descriptions of workflows for people: schemas, place, docstring. A bad description never fails a registration."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from msgspec import Meta, Struct, structs

from perdure import Context, Registry, Workflow
from perdure.embedded import LocalTransport, embedded
from perdure.sdk.payloads.schemas import schema_of
from perdure.sdk.workers.worker import Worker
from perdure.wire.agents.definitions import RegisterAgent
from perdure.wire.base.errors import BadValue
from perdure.wire.base.operation import Operation
from perdure.wire.runs.requests import RegisterRequest
from perdure.wire.runs.workflows import SCHEMA_BYTES_MAX, GetStartable, GetWorkflow, GetWorkflows, WorkflowType

Json = Any


class Line(pydantic.BaseModel):
    sku: str = pydantic.Field(alias="SKU")
    amount: int = 1


class Order(pydantic.BaseModel):
    lines: list[Line]
    before: "Order | None" = None


@dataclass
class Parcel:
    order: Order
    extra: list[Line]


class Choice(Struct):
    size: Annotated[int, Meta(ge=1)]
    kind: Literal["a", "b"] = "a"


class Odd:
    pass


class Angry(pydantic.BaseModel):
    @classmethod
    def __get_pydantic_json_schema__(cls, *_: object) -> Json:
        raise RuntimeError("no schema today")


def schema(type_: Any) -> Json:
    found = schema_of(type_)
    return None if found is None else json.loads(found)


def references(part: Json) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if "$ref" in part else set()
        return own.union(*(references(value) for value in part.values()))
    return set().union(*(references(value) for value in part)) if isinstance(part, list) else set()


@pytest.mark.parametrize("type_", [Order, list[Order], Parcel, Choice, dict[str, Choice | None], int, list[Any]])
def test_a_schema_has_all_that_it_refers_to(type_: Any) -> None:
    found = schema(type_)
    assert references(found) <= {f"#/$defs/{name}" for name in found.get("$defs", {})}


def test_a_schema_names_fields_as_journals_do() -> None:
    line = schema(Line)
    assert (list(line["properties"]), line["required"]) == (["sku", "amount"], ["sku"])
    assert schema(Choice)["$defs"]["Choice"]["properties"]["size"] == {"type": "integer", "minimum": 1}


@pytest.mark.parametrize("type_", [Any, object, None, Odd, list[Odd], Angry, "no type", 7])
def test_what_has_no_schema_is_left_out(type_: Any) -> None:
    assert schema_of(type_) is None


def test_two_types_of_one_name_are_left_out() -> None:
    other = pydantic.create_model("Line", weight=(float, ...))
    both = msgspec.defstruct("Both", [("one", list[Line]), ("nested", Parcel), ("other", other)])
    found = schema_of(both)
    assert found is None or references(json.loads(found)) <= {f"#/$defs/{name}" for name in json.loads(found)["$defs"]}


def test_a_large_schema_is_left_out() -> None:
    large = msgspec.defstruct("Large", [(f"field_{n:05}", int) for n in range(SCHEMA_BYTES_MAX // 32)])
    assert schema_of(large) is None


registry = Registry()


@registry.workflow
async def ship(ctx: Context, parcel: Parcel) -> Choice:
    """Ship a parcel
    to its customer.

    It may take days.
    """
    return Choice(1)


@registry.workflow
async def plain(ctx: Context) -> None: ...


@registry.workflow
async def odd(ctx: Context, given: Odd) -> Any: ...


async def test_a_registration_tells_types_place_and_docstring() -> None:
    async with embedded(":memory:", registry) as p:
        found = await p._transport.call(GetWorkflow("ship"))
        assert (found.description, found.takes_input) == ("Ship a parcel to its customer.", True)
        assert json.loads(bytes(found.input_schema or b""))["$defs"].keys() == {"Parcel", "Order", "Line"}
        assert json.loads(bytes(found.output_schema or b"")) == schema(Choice)
        assert found.source is not None and found.source.file == "tests/sdk/test_descriptions.py"
        assert found.source.line == ship.fn.__code__.co_firstlineno
        bare = await p._transport.call(GetWorkflow("plain"))
        assert (bare.takes_input, bare.input_schema, bare.description) == (False, None, None)
        strange = await p._transport.call(GetWorkflow("odd"))
        assert (strange.takes_input, strange.input_schema, strange.output_schema) == (True, None, None)
        listed = (await p._transport.call(GetWorkflows())).items
        assert [one.source for one in listed] == [None] * 3, "lists stay small"


async def test_what_can_be_started_is_listed_once_with_its_schema(database: str) -> None:
    """The list has pages and shows each workflow as the newest deployment registered the workflow."""
    async with embedded(database, registry) as p:
        first = await p._transport.call(GetStartable(limit=2))
        last = await p._transport.call(GetStartable(first.next_cursor, 2))
        assert last.next_cursor is None
        found = {one.id: one for one in (*first.items, *last.items)}
        assert list(found) == ["odd", "plain", "ship"]
        assert "Parcel" in json.loads(bytes(found["ship"].input_schema or b""))["$defs"]
        specs, _, _, _ = registry.specs()
        helper = RegisterAgent("helper", "openai", "gpt", deployment_id="newer")
        agent = structs.replace(specs[0], id="helper", type=WorkflowType.AGENT, agent=helper)
        await p._transport.call(
            RegisterRequest("0190a5f2-7c1e-7b3a-9d55-0242ac120002", "newer", "3.11", [agent, *specs], embedded=True)
        )
        again = (await p._transport.call(GetStartable())).items
        assert {one.id: (one.deployment_id, one.type) for one in again} == {
            "helper": ("newer", "agent"),
            **dict.fromkeys(found, ("newer", "workflow")),
        }


async def test_a_worker_without_descriptions_takes_those_of_its_predecessor_back() -> None:
    async with embedded(":memory:", registry) as p:
        specs, _, _, _ = registry.specs()
        older = [structs.replace(one, description=None) for one in specs]
        await p._transport.call(
            RegisterRequest("0190a5f2-7c1e-7b3a-9d55-0242ac120002", "default", "3.11", older, embedded=True)
        )
        found = await p._transport.call(GetWorkflow("ship"))
        assert (found.takes_input, found.source) == (None, None)


class OlderServer(LocalTransport):
    """A server that refuses descriptions."""

    async def call(self, op: Operation[Any], key: str | None = None) -> Any:
        if isinstance(op, RegisterRequest) and (op.host or op.pid or any(one.description for one in op.workflows)):
            raise BadValue("body.workflows[0]: Object contains unknown field `description`")
        return await super().call(op, key)


async def test_a_worker_registers_at_an_older_server_without_them() -> None:
    async with embedded(":memory:", Registry()) as p:
        worker = Worker(OlderServer(p.engine, await p.engine.projects.default()), registry, deployment="other")
        await worker.start()
        found = await p._transport.call(GetWorkflow("ship"))
        assert (found.deployment_id, found.source) == ("other", None)
        await worker.drain()


def _registered(**description: Json) -> Json:
    return {
        "worker_id": "0190a5f2-7c1e-7b3a-9d55-0242ac120002",
        "deployment_id": "d",
        "python": "3.11",
        "workflows": [{"id": "w", "description": description}],
    }


@pytest.mark.parametrize(
    "description",
    [
        {"input_schema": "x" * SCHEMA_BYTES_MAX},
        {"text": "x" * 5_000},
        {"file": "a\0b"},
        {"line": -1},
        {"line": 1 << 40},
    ],
)
async def test_what_is_too_much_is_refused(description: Json) -> None:
    async with embedded(":memory:", Registry()) as p:
        request = msgspec.convert(_registered(**_raw(description)), RegisterRequest)
        with pytest.raises(BadValue, match=r"workflows\.description"):
            await p._transport.call(request)


def _raw(description: Json) -> Json:
    return {
        name: msgspec.Raw(json.dumps(value).encode()) if name.endswith("schema") else value
        for name, value in description.items()
    }


def test_the_schemas_of_a_workflow_are_made_once() -> None:
    made: Workflow[Any, Any] = Workflow(ship.fn)
    first = made.spec().description
    assert made.spec().description is first
