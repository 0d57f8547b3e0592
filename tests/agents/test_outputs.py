"""Outputs of agents: distinct types, the types' names, and output that cannot be written."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, StructuredDict
from pydantic_ai.models.test import TestModel
from tests.agents.scripted import Script, call

from perdure import ExecutionFailed, Registry
from perdure.agents import durable
from perdure.testing import embedded


class Refund(BaseModel):
    reason: str


class Reject(BaseModel):
    reason: str


@dataclass
class Escalate:
    reason: str


class Paid(Refund):
    kind: Literal["paid"] = "paid"


class Unpaid(Refund):
    kind: Literal["unpaid"] = "unpaid"


@pytest.mark.parametrize("types", [[Refund, Reject], [Refund, str, Escalate], Reject | Refund])
def test_output_types_that_json_cannot_tell_apart_are_refused(types: Any) -> None:
    with pytest.raises(ValueError, match="have the same fields"):
        durable(Agent(TestModel(), name="refused", output_type=types))


@pytest.mark.parametrize(
    ("types", "tool", "given"),
    [
        ([Paid, Unpaid], "final_result_Unpaid", Unpaid(reason="late")),
        ([Refund, Unpaid], "final_result_Unpaid", Unpaid(reason="late")),
        ([Refund, Unpaid], "final_result_Refund", Refund(reason="late")),
    ],
)
async def test_output_comes_back_as_the_type_that_the_model_chose(types: Any, tool: str, given: Any) -> None:
    clerk: Any = durable(Agent(Script(call(tool, "c1", reason="late")).model, name="clerk", output_type=types))
    async with embedded(Registry(clerk)) as p:
        assert await clerk.run(p, "?") == given


def test_a_type_that_is_made_of_a_schema_has_the_name_that_it_was_given() -> None:
    named, plain = StructuredDict({"type": "object"}, name="Foo"), StructuredDict({"type": "object"})
    assert durable(Agent(TestModel(), name="a", output_type=named)).output_schema_name == "Foo"
    assert durable(Agent(TestModel(), name="b", output_type=[plain, int])).output_schema_name == "dict | int"


async def test_a_run_whose_output_cannot_be_written_adds_nothing_to_its_conversation() -> None:
    def made(text: str) -> object:
        return object()

    clerk = durable(Agent(TestModel(), name="clerk", output_type=made))
    async with embedded(Registry(clerk)) as p:
        with pytest.raises(ExecutionFailed) as failed:
            await clerk.run(p, "?", session_id="s")
        assert failed.value.type == "BadValue"
        assert not (await p.transcript("s")).entries
