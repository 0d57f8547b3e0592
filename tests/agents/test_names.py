"""The names of an agent's steps, word by word: journals of users hold the names, and a changed name blocks runs."""

import pytest
from pydantic_ai import Agent
from pydantic_ai.durable_exec import (
    CapabilityOperationId,
    DurableOperationId,
    EventStreamHandlerId,
    ModelCancelSuspendedResponseId,
    ModelCompactMessagesId,
    ModelRequestId,
    ToolsetCallToolId,
    ToolsetGetInstructionsId,
    ToolsetGetToolsId,
    ToolsetValidateToolArgumentsId,
)
from pydantic_ai.models.test import TestModel

from perdure.agents import durable
from perdure.agents.names import Keys, as_tool_name, key_prefix, part, step_name

NAMES: list[tuple[DurableOperationId, tuple[str, str]]] = [
    (ModelRequestId(None, model_name="m"), ("model.request", "model:")),
    (ModelRequestId("other", model_name="m", streaming=True), ("model.request", "model:")),
    (ModelCompactMessagesId(None, model_name="m"), ("model.compact", "compact:")),
    (ModelCancelSuspendedResponseId(None, model_name="m"), ("model.cancel", "model-cancel:")),
    (ToolsetCallToolId("function", toolset_id="crm"), ("tool.refund", "tool:refund:call_7")),
    (ToolsetCallToolId("dynamic", toolset_id="crm"), ("tool.refund", "tool:refund:call_7")),
    (ToolsetCallToolId("mcp", toolset_id="crm"), ("mcp.refund", "mcp:refund:call_7")),
    (
        ToolsetValidateToolArgumentsId("function", toolset_id="crm"),
        ("tool.validate", "validate:refund:call_7"),
    ),
    (ToolsetGetToolsId("mcp", toolset_id="crm"), ("tools.list", "tools:crm:")),
    (ToolsetGetInstructionsId("crm"), ("tools.instructions", "instructions:crm:")),
    (CapabilityOperationId("memory", operation="load"), ("capability.load", "capability:memory.load:")),
    (EventStreamHandlerId(), ("operation.EventStreamHandlerId", "operation:EventStreamHandlerId:")),
]


@pytest.mark.parametrize(("operation", "name"), NAMES, ids=lambda one: one[1] if isinstance(one, tuple) else "")
def test_each_operation_has_its_name(operation: DurableOperationId, name: tuple[str, str]) -> None:
    assert step_name(operation, "refund", "call_7") == name


def test_a_key_is_given_out_once() -> None:
    keys = Keys("")
    tool = "tool:refund:call_7"
    assert [keys.again("model:"), keys.again("model:")] == ["model:1", "model:2"]
    assert [keys.again(tool), keys.again(tool), keys.again(tool)] == [
        "tool:refund:call_7",
        "tool:refund:call_7:2",
        "tool:refund:call_7:3",
    ]


def test_an_agent_inside_another_workflow_has_keys_of_its_own() -> None:
    assert Keys(key_prefix("agent:support")).again("model:") == "agent:support/model:1"
    assert key_prefix("3/agent:support#2") == "3.agent:support.2/"


def test_whatever_a_provider_calls_its_calls_makes_a_key() -> None:
    assert part("call/1#2%") == "call-1-2-"
    assert part("") == "-"
    long, other = part("x" * 5_000 + "a"), part("x" * 5_000 + "b")
    assert len(long) <= 100 and long != other


@pytest.mark.parametrize(
    ("agent", "tool"),
    [("support desk", "support_desk"), ("Café/Billing v1.2", "Caf__Billing_v1_2"), ("x" * 100, "x" * 64)],
)
def test_an_agent_as_a_tool_has_a_name_that_providers_take(agent: str, tool: str) -> None:
    assert as_tool_name(agent) == durable(Agent(TestModel(), name=agent)).as_tool().name == tool
