"""An agent's payload and result: lenient, because agents may take and return any JSON."""

from typing import Any, Final, NamedTuple

import msgspec

from perdure.wire.base.wording import decoded_object

PREVIEW_BYTES_MAX: Final = 200
STOPPED: Final = "stopped"
"""A run that a budget or another bound ended early has this key in its progress."""
OVER_BUDGET: Final = "ended early (budget)"
"""If a budget ended the run, its progress text and the name of the end in the parent's journal begin with this."""
_TEXTS: Final = ("input", "message", "content", "prompt")
_AROUND: Final = frozenset({"result", "content", "usage", "tool_results", "agent_run_id"})
"""Existing clients put these fields around an agent's output."""


class Usage(NamedTuple):
    input: int = 0
    output: int = 0
    total: int = 0


def decoded(value: bytes | None) -> Any:
    return None if value is None else msgspec.json.decode(value)


def early_end(progress: bytes | None) -> str | None:
    """Return why a run ended early, in the words of its outcome; None for other executions.

    >>> early_end(b'{"stopped":"budget","text":"ended early (budget): The budget is used up."}')
    'ended early (budget): The budget is used up.'
    """
    said = decoded_object(progress)
    return str(said.get("text")) if STOPPED in said else None


def over_budget(progress: bytes | None) -> str | None:
    """Return the first 500 characters of `early_end` if a budget ended the run, else None."""
    said = early_end(progress)
    return said[:500] if said is not None and said.startswith(OVER_BUDGET) else None


def user_message(payload: Any) -> Any:
    if isinstance(payload, str):
        return payload
    if not isinstance(payload, dict):
        return None
    return next((payload[name] for name in _TEXTS if payload.get(name) is not None), None)


def assistant_message(result: Any) -> Any:
    """Return the output of an agent's run. The result of a durable agent is the output; other results contain it."""
    if isinstance(result, str):
        return result
    if not isinstance(result, dict) or not result:
        return None
    if _AROUND.isdisjoint(result):
        return result
    return result["result"] if result.get("result") is not None else result.get("content")


def tool_calls(result: Any) -> list[tuple[Any, Any, Any]]:
    """Return name, status and result of each tool call."""
    found = result.get("tool_results") if isinstance(result, dict) else None
    if not isinstance(found, list):
        return []
    return [(one.get("tool_name"), one.get("status"), one.get("result")) for one in found if isinstance(one, dict)]


def usage(result: Any) -> Usage:
    found = result.get("usage") if isinstance(result, dict) else None
    if not isinstance(found, dict):
        return Usage()
    given, taken, total = (_count(found.get(name)) for name in ("input_tokens", "output_tokens", "total_tokens"))
    return Usage(given, taken, total or given + taken)


def preview(message: Any) -> str | None:
    if message is None:
        return None
    text = message if isinstance(message, str) else msgspec.json.encode(message).decode()
    data = text.encode()
    if len(data) <= PREVIEW_BYTES_MAX:
        return text
    return data[:PREVIEW_BYTES_MAX].decode(errors="ignore") + "..."


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 53 else 0
