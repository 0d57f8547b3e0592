"""Conditions under which an agent gets no more tools and must answer.

    research = durable(agent, stop=[max_steps(10), max_tokens(50_000), called_tool("publish")])

Pydantic AI's `UsageLimits` end a run with an error instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, get_args

from pydantic_ai.messages import InstructionPart, ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models import ModelRequestContext, ModelRequestParameters
from pydantic_ai.tools import RunContext, ToolDefinition

from perdure.agents.runs import AgentRun, StopReason
from perdure.sdk.base.errors import BudgetExceeded
from perdure.sdk.clients.executions import ExecutionInfo
from perdure.wire.agents.agent_runs import STOPPED

StopCondition: TypeAlias = Callable[[RunContext[Any]], str | None]
"""Called before each model request, and again in a replay, so it must depend on the run alone."""


def max_steps(count: int) -> StopCondition:
    """Allow at most `count` model requests. The last request must answer."""
    if count < 1:
        raise ValueError(f"max_steps must be at least 1, got {count!r}.")

    def stop(ctx: RunContext[Any]) -> str | None:
        return f"It has taken {count} steps." if ctx.run_step >= count else None

    return stop


def max_tokens(count: int) -> StopCondition:
    """Stop after `count` tokens, input and output."""
    if count < 1:
        raise ValueError(f"max_tokens must be at least 1, got {count!r}.")

    def stop(ctx: RunContext[Any]) -> str | None:
        used = ctx.usage.input_tokens + ctx.usage.output_tokens
        return f"It has used {used} tokens of {count}." if used >= count else None

    return stop


def called_tool(*names: str) -> StopCondition:
    """Stop once each named tool has returned a result."""
    if not names:
        raise ValueError("called_tool needs the name of at least one tool; without one it would stop at once.")

    def stop(ctx: RunContext[Any]) -> str | None:
        done = {part.tool_name for message in _own(ctx) for part in message.parts if isinstance(part, ToolReturnPart)}
        return f"It has called {', '.join(names)}." if done.issuperset(names) else None

    return stop


def has_text(*texts: str) -> StopCondition:
    """Stop once the model has said each text, outside tool calls."""
    if not texts:
        raise ValueError("has_text needs at least one text; without one it would stop at once.")

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
    return [message for message in ctx.messages if message.run_id == ctx.run_id]


def withheld(
    run: AgentRun, conditions: Sequence[StopCondition], ctx: RunContext[Any], tools: list[ToolDefinition]
) -> list[ToolDefinition]:
    if run.finishing is None:
        for condition in conditions:
            if (why := condition(ctx)) is not None:
                run.finish("stop", why)
                break
    return tools if run.finishing is None else []


def without_calls(run: AgentRun, request: ModelRequestContext, response: ModelResponse) -> ModelResponse:
    """Drop calls of tools withdrawn from the model. An empty answer becomes the run's last words.

    Raises BudgetExceeded if a budget ends a run without any words.
    """
    parameters = request.model_request_parameters
    outputs = {tool.name for tool in parameters.output_tools}
    calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
    if not calls or not parameters.allow_text_output or any(call.tool_name in outputs for call in calls):
        return response
    kept = [part for part in response.parts if not isinstance(part, ToolCallPart)]
    if not any(isinstance(part, TextPart) and part.content for part in kept):
        words = last_said(request.messages, run.id)
        if words is None and run.finished_by == "budget":
            raise BudgetExceeded(run.finishing or "")
        kept.append(TextPart(words or run.finishing or ""))
    return replace(response, parts=kept)


def last_said(messages: Sequence[ModelMessage], run_id: str | None) -> str | None:
    for message in reversed(messages):
        if isinstance(message, ModelResponse) and message.run_id == run_id:
            said = [part.content for part in message.parts if isinstance(part, TextPart) and part.content]
            if said:
                return "\n\n".join(said)
    return None


def stop_reason(execution: ExecutionInfo[Any]) -> StopReason | None:
    """The reason for an early answer. None if the agent ended by itself or has not ended.

    >>> stop_reason(await handle.get())                                                 # doctest: +SKIP
    'budget'
    """
    said = execution.progress
    by = said.get(STOPPED) if isinstance(said, dict) else None
    return by if by in get_args(StopReason) else None


def answer_now(run: AgentRun, request: ModelRequestContext) -> None:
    request.model_request_parameters = instruct_to_answer(request.model_request_parameters, run.finishing)


def instruct_to_answer(parameters: ModelRequestParameters, why: str | None) -> ModelRequestParameters:
    said = InstructionPart(f"{why} You have no tools any more: answer now, with what you have.", dynamic=True)
    return replace(parameters, instruction_parts=[*(parameters.instruction_parts or ()), said])
