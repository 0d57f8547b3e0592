"""The examples' model: a real one if AGENT_MODEL names it, otherwise one that says its lines."""

import os
from collections.abc import Callable

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models import Model
from pydantic_ai.models.function import AgentInfo, FunctionModel

Said = str | ToolCallPart | list[ToolCallPart]
Line = Said | Callable[[list[ModelMessage]], Said]


def model(*lines: Line) -> Model | str:
    """What an agent of the examples runs on. `lines` are what it answers offline, one after the other."""
    named = os.environ.get("AGENT_MODEL")
    if named:
        return named

    def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        answers = sum(isinstance(message, ModelResponse) for message in messages)
        line = lines[min(answers, len(lines) - 1)]
        said = line(messages) if callable(line) else line
        if isinstance(said, str):
            return ModelResponse([TextPart(said)])
        return ModelResponse([said] if isinstance(said, ToolCallPart) else list(said))

    return FunctionModel(answer, model_name="offline")


def call(tool: str, **arguments: object) -> ToolCallPart:
    """The model's call of a tool."""
    return ToolCallPart(tool, arguments, tool_call_id="-".join([tool, *map(str, arguments.values())]))


def results(messages: list[ModelMessage]) -> list[object]:
    """What the tools have given."""
    return [part.content for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
