"""When an agent has done enough: it gets no tools any more, and answers with what it has.

    research = durable(agent, stop=[max_steps(10), max_tokens(50_000), called_tool("publish")])

The library's `UsageLimits` end a run by an error; these end it by an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, get_args

from msgspec import MsgspecError, json
from pydantic_ai.messages import InstructionPart, ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models import ModelRequestContext, ModelRequestParameters
from pydantic_ai.tools import RunContext, ToolDefinition

from perdure.agents.runs import STOPPED, AgentRun, StopReason
from perdure.wire.records import Execution

StopCondition: TypeAlias = Callable[[RunContext[Any]], str | None]
"""Looked at before each request to the model: a reason to stop, or None. A function of the run and nothing else, since
a replay asks it again."""


def max_steps(count: int) -> StopCondition:
    """At most `count` requests to the model; the last one must answer."""
    if count < 1:
        raise ValueError(f"max_steps must be at least 1, got {count!r}.")

    def stop(ctx: RunContext[Any]) -> str | None:
        return f"It has taken {count} steps." if ctx.run_step >= count else None

    return stop


def max_tokens(count: int) -> StopCondition:
    """Once the run has used `count` tokens, in and out."""
    if count < 1:
        raise ValueError(f"max_tokens must be at least 1, got {count!r}.")

    def stop(ctx: RunContext[Any]) -> str | None:
        used = ctx.usage.input_tokens + ctx.usage.output_tokens
        return f"It has used {used} tokens of {count}." if used >= count else None

    return stop


def called_tool(*names: str) -> StopCondition:
    """Once each of these tools has given a result."""
    if not names:
        raise ValueError("called_tool wants the name of a tool at least; without one it would stop at once.")

    def stop(ctx: RunContext[Any]) -> str | None:
        done = {part.tool_name for message in _own(ctx) for part in message.parts if isinstance(part, ToolReturnPart)}
        return f"It has called {', '.join(names)}." if done.issuperset(names) else None

    return stop


def has_text(*texts: str) -> StopCondition:
    """Once the model has said each of these texts, beside its calls of tools."""
    if not texts:
        raise ValueError("has_text wants a text at least; without one it would stop at once.")

    def stop(ctx: RunContext[Any]) -> str | None:
        said = "\n".join(
            part.content
            for message in _own(ctx)
            if isinstance(message, ModelResponse)
            for part in message.parts
            if isinstance(part, TextPart)
        )
        return f"It has said {', '.join(map(repr, texts))}." if all(text in said for text in texts) else None

    return stop


def _own(ctx: RunContext[Any]) -> Sequence[ModelMessage]:
    """The messages of this run, without what was said before it."""
    return [message for message in ctx.messages if message.run_id == ctx.run_id]


def withheld(
    run: AgentRun, conditions: Sequence[StopCondition], ctx: RunContext[Any], tools: list[ToolDefinition]
) -> list[ToolDefinition]:
    """The tools for the next request: none once a condition is met, or whoever watches the run says so."""
    if run.finishing is None:
        for condition in conditions:
            if (why := condition(ctx)) is not None:
                run.finish("stop", why)
                break
    return tools if run.finishing is None else []


def without_calls(run: AgentRun, request: ModelRequestContext, response: ModelResponse) -> ModelResponse:
    """The answer of a model that calls tools which it has not any more: its words, else the last ones that it has said
    in this run, else why it was to stop. As it is where the agent owes another output than text."""
    parameters = request.model_request_parameters
    outputs = {tool.name for tool in parameters.output_tools}
    calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
    if not calls or not parameters.allow_text_output or any(call.tool_name in outputs for call in calls):
        return response
    kept = [part for part in response.parts if not isinstance(part, ToolCallPart)]
    if not any(isinstance(part, TextPart) and part.content for part in kept):
        kept.append(TextPart(last_said(request.messages, run.id) or run.finishing or ""))
    return replace(response, parts=kept)


def last_said(messages: Sequence[ModelMessage], run_id: str | None) -> str | None:
    """The last words of a run; None when it has said nothing."""
    for message in reversed(messages):
        if isinstance(message, ModelResponse) and message.run_id == run_id:
            said = [part.content for part in message.parts if isinstance(part, TextPart) and part.content]
            if said:
                return "\n\n".join(said)
    return None


def stop_reason(execution: Execution) -> StopReason | None:
    """What made an agent answer before it was done; None when it ended by itself, or has not ended.

    >>> stop_reason(await handle.get())                                                 # doctest: +SKIP
    'budget'
    """
    if execution.progress is None:
        return None
    try:
        said = json.decode(execution.progress)
    except MsgspecError:
        return None
    by = said.get(STOPPED) if isinstance(said, dict) else None
    return by if by in get_args(StopReason) else None


def answer_now(run: AgentRun, request: ModelRequestContext) -> None:
    """Tell the model that it has no tools any more."""
    request.model_request_parameters = told_to_answer(request.model_request_parameters, run.finishing)


def told_to_answer(parameters: ModelRequestParameters, why: str | None) -> ModelRequestParameters:
    """The parameters of a request that is to be answered without tools."""
    said = InstructionPart(f"{why} You have no tools any more: answer now, with what you have.", dynamic=True)
    return replace(parameters, instruction_parts=[*(parameters.instruction_parts or ()), said])
