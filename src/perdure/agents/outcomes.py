"""Signals of tools and hooks to the library, recorded in its own shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ModelRetry, ToolFailed


def to_signal(error: Exception) -> dict[str, Any] | None:
    """None for a failure."""
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
