"""Signals of tools and hooks to the library, recorded in the library's own shape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed
from pydantic_ai.messages import ModelMessage, ModelRequest, RetryFeedbackPart, ToolReturnPart
from pydantic_ai.models import ModelRequestParameters


def to_signal(error: Exception) -> dict[str, Any] | None:
    """Returns None for a failure."""
    match error:
        case ModelRetry():
            return {"message": error.message, "kind": "model_retry"}
        case ToolFailed():
            return {"message": error.message, "kind": "tool_failed"}
        case ApprovalRequired():
            return {"metadata": error.metadata, "kind": "approval_required"}
        case CallDeferred():
            return {"metadata": error.metadata, "call_kind": error.kind, "kind": "call_deferred"}
    return None


def from_signal(said: Mapping[str, Any]) -> Exception:
    match said["kind"]:
        case "model_retry":
            return ModelRetry(said["message"])
        case "tool_failed":
            return ToolFailed(said["message"])
        case "approval_required":
            return ApprovalRequired(said["metadata"])
    return CallDeferred(said["metadata"], kind=said["call_kind"])


def refused(messages: Sequence[ModelMessage], asked: ModelRequestParameters) -> Iterator[str]:
    """The reason why the agent's code refused a model's answer, for the log. Steps record a tool's own errors."""
    tools = {tool.name for tool in asked.function_tools}
    for request in reversed(list(takewhile(lambda one: isinstance(one, ModelRequest), reversed(messages)))):
        for part in request.parts:
            if isinstance(part, RetryFeedbackPart):
                yield _outcome_text(part.content)
            elif (
                isinstance(part, ToolReturnPart)
                and part.outcome == "retried"
                and (part.tool_name not in tools or not isinstance(part.content, str))
            ):
                yield f"{part.tool_name}: {_outcome_text(part.content)}"


def _outcome_text(content: object) -> str:
    if not isinstance(content, list):
        return str(content)
    return "; ".join(": ".join([".".join(map(str, one["loc"])), one["msg"]]).removeprefix(": ") for one in content)
