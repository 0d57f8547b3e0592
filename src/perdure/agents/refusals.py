"""Why the agent's code refused an answer of its model. The log has it, but not the journal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

from pydantic_ai.messages import ModelMessage, ModelRequest, RetryFeedbackPart, ToolReturnPart
from pydantic_ai.models import ModelRequestParameters


def refused(messages: Sequence[ModelMessage], asked: ModelRequestParameters) -> Iterator[str]:
    """A tool's own errors are in its step."""
    tools = {tool.name for tool in asked.function_tools}
    for request in reversed(list(takewhile(lambda one: isinstance(one, ModelRequest), reversed(messages)))):
        for part in request.parts:
            if isinstance(part, RetryFeedbackPart):
                yield _words(part.content)
            elif (
                isinstance(part, ToolReturnPart)
                and part.outcome == "retried"
                and (part.tool_name not in tools or not isinstance(part.content, str))
            ):
                yield f"{part.tool_name}: {_words(part.content)}"


def _words(content: object) -> str:
    if not isinstance(content, list):
        return str(content)
    return "; ".join(": ".join([".".join(map(str, one["loc"])), one["msg"]]).removeprefix(": ") for one in content)
