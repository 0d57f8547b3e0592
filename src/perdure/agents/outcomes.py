"""What a call of a tool comes to when the library is told something instead of given a value: that the model is to try
again, that it shall hear of a failure, that somebody is to allow the call, that its answer comes from outside.

The tool may say so, and so may a hook before or after it. Both are recorded in the shape that the library gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed


def signal_of(error: Exception) -> dict[str, Any] | None:
    """What an exception tells the library, as it is recorded; None for a failure."""
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


def error_of(said: Mapping[str, Any]) -> Exception:
    """The exception whose signal was recorded."""
    match said["kind"]:
        case "model_retry":
            return ModelRetry(said["message"])
        case "tool_failed":
            return ToolFailed(said["message"])
        case "approval_required":
            return ApprovalRequired(said["metadata"])
    return CallDeferred(said["metadata"], kind=said["call_kind"])
