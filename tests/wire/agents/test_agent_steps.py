"""Readings of an agent's steps: by the command line, and for spans."""

import msgspec
import pytest
from msgspec import structs

from perdure.wire.agents.agent_steps import (
    ToolStep,
    ToolUse,
    call_usage,
    genai_attributes,
    genai_name,
    model_answer,
    tool_outcome,
    tool_step,
)
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.records import NULL, Kind
from perdure.wire.base.status import Phase
from perdure.wire.insight.journal_spans import TracedExecution, journal_spans
from perdure.wire.insight.traces import SpanValues

ANSWER = msgspec.json.encode(
    {
        "parts": [
            {"content": "Let me see.", "part_kind": "text"},
            {"tool_name": "refund", "args": '{"order": 7}', "tool_call_id": "c1", "part_kind": "tool-call"},
        ],
        "usage": {"input_tokens": 10, "output_tokens": 5, "cost": "0.002"},
        "model_name": "gpt-5.2",
        "provider_name": "openai",
        "provider_response_id": "r1",
        "finish_reason": "tool_call",
        "kind": "response",
    }
)


def test_a_models_answer_is_read_with_what_it_took() -> None:
    answer = model_answer("model.request", ANSWER)
    assert answer is not None
    assert (answer.model, answer.input_tokens, answer.output_tokens, answer.cost) == ("gpt-5.2", 10, 5, "0.002")
    assert answer.texts == ("Let me see.",) and answer.calls == (ToolUse("refund", {"order": 7}, "c1"),)


@pytest.mark.parametrize("value", [b"null", b"7", b'{"kind":"response"}', b'{"kind":"response","parts":[1,{}]}', b"{"])
def test_what_only_looks_alike_is_no_answer_or_an_empty_one(value: bytes) -> None:
    answer = model_answer("model.request", value)
    assert answer is None or (answer.texts, answer.calls, answer.input_tokens) == ((), (), 0)
    assert model_answer("something.else", ANSWER) is None


@pytest.mark.parametrize("cost", [b'"n/a"', b'"NaN"', b"1e400", b"{}", b"true", b"null", b"9" * 400])
def test_a_cost_that_is_no_amount_is_left_out(cost: bytes) -> None:
    value = b'{"kind":"response","parts":[],"usage":{"cost":' + cost + b"}}"
    assert not isinstance(genai_attributes("model.request", "model:1", value).get("operation.cost"), float)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"input_tokens": 3, "output_tokens": 4}, (3, 4)),
        ({"output_tokens": 4}, (0, 4)),
        ({"input_tokens": -3, "output_tokens": 4}, (0, 4)),
        ({"input_tokens": True, "output_tokens": 4}, (0, 0)),
        ({"input_tokens": "3", "output_tokens": 4}, (0, 0)),
        ({"input_tokens": 3.5, "output_tokens": 4}, (0, 0)),
        (None, (0, 0)),
    ],
)
def test_tokens_of_another_shape_are_not_counted(usage: object, tokens: tuple[int, int]) -> None:
    found = call_usage("model.request", msgspec.json.encode({"kind": "response", "usage": usage}))
    said = (0, 0) if found is None else (found.input_tokens, found.output_tokens)
    assert said == tokens and {*map(type, said)} == {int}


def test_a_tools_step_says_which_call_it_was() -> None:
    assert tool_step("tool.refund", "tool:refund:c1") == ToolStep("refund", "function", "c1")
    assert tool_step("mcp.search", "3.agent:a/mcp:search:c2:2") == ToolStep("search", "extension", "c2")
    assert tool_step("tool.refund", "refund") is None
    assert tool_step("tool.validate", "validate:refund:c1") is None
    assert tool_step(None, None) is None


@pytest.mark.parametrize(
    ("value", "heard"),
    [
        (b'{"result":{"a":1},"kind":"tool_return"}', {"a": 1}),
        (b'{"usage":{"requests":1},"value":{"result":7,"kind":"tool_return"}}', 7),
        (b'{"result":{"return_value":"x","kind":"tool-return"},"kind":"tool_return"}', "x"),
        (b'{"message":"no such city","kind":"model_retry"}', "no such city"),
        (b'{"metadata":null,"kind":"approval_required"}', "waits for approval"),
        (b"7", None),
    ],
)
def test_what_a_tool_gave_is_read_as_the_model_hears_it(value: bytes, heard: object) -> None:
    assert tool_outcome(value) == heard


def test_spans_of_an_agent_have_the_attributes_of_the_genai_conventions() -> None:
    rows = [
        JournalEntry(2, 20, Kind.STEP, "model:1", "model.request", True, ANSWER, 10, 1),
        JournalEntry(
            3, 40, Kind.STEP, "tool:refund:c1", "tool.refund", True, b'{"result":1,"kind":"tool_return"}', 30, 1
        ),
        JournalEntry(4, 60, Kind.STEP, "model:2", "model.request", False, b'{"type":"ModelHTTPError"}', 50, 4),
        JournalEntry(5, 80, Kind.STEP, "charge", "charge", True, b"1", 70, 1),
    ]
    traced = TracedExecution(
        id="0198c5e0-0000-7000-8000-000000000001",
        workflow_id="support",
        phase=Phase.COMPLETED,
        created_at_us=1,
        started_at_us=2,
        completed_at_us=100,
        parent_execution_id=None,
        root_execution_id=None,
        step_key=None,
        deployment_id="default",
        session_id="ann",
        user_id=None,
        attempt=1,
        retry_count=0,
        failure=None,
        values=SpanValues(input=NULL, output=NULL),
        cut=False,
        kind="agent",
        rows=rows,
    )
    spans = journal_spans(traced)
    assert [span.name for span in spans] == ["agent.support", "chat gpt-5.2", "execute_tool refund", "chat", "charge"]
    said = [msgspec.json.decode(bytes(span.values.attributes or b"")) for span in spans]
    assert said[0]["gen_ai.operation.name"] == "invoke_agent" and said[0]["gen_ai.conversation.id"] == "ann"
    assert said[1]["gen_ai.usage.input_tokens"] == 10 and said[1]["gen_ai.provider.name"] == "openai"
    assert said[1]["operation.cost"] == 0.002 and said[1]["step.key"] == "model:1"
    assert said[2]["gen_ai.tool.call.id"] == "c1"
    assert not any(name.startswith("gen_ai") for name in said[4])
    forked = [*rows[:3], JournalEntry(5, 65, Kind.FORKED, "charge", "source", True, b"null", None, 0), rows[3]]
    spans = journal_spans(structs.replace(traced, rows=forked))
    assert [span.name for span in spans] == ["agent.support", "charge"], "the copies are in the trace of the source"


def test_a_step_of_a_workflow_has_no_such_attributes() -> None:
    assert genai_attributes("charge", "charge", b"1") == {} and genai_name({}) is None
