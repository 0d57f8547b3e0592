"""The steps of a durable agent, read from its journal.

Lenient: any workflow may use such names.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

MODEL: Final = "model.request"
LIST: Final = "tools.list"
INSTRUCTIONS: Final = "tools.instructions"
SUMMARY: Final = "conversation.summarize"
ASKED_AGAIN: Final = "The model is asked again: "
"""A log line begins with this, followed by the reason: the journal has only the next answer."""
ANSWERS: Final = frozenset({MODEL, SUMMARY})
_TOOLS: Final = {"tool": "function", "mcp": "extension"}


class ToolUse(NamedTuple):
    name: str
    arguments: Any
    call_id: str | None


class ModelAnswer(NamedTuple):
    model: str | None
    provider: str | None
    response_id: str | None
    finish_reason: str | None
    input_tokens: int
    output_tokens: int
    cost: str | None
    texts: tuple[str, ...]
    calls: tuple[ToolUse, ...]


class ToolStep(NamedTuple):
    """`kind` is `function`, or `extension` for a tool with its own server."""

    name: str
    kind: str
    call_id: str | None


def model_answer(name: str | None, value: bytes | None) -> ModelAnswer | None:
    """Return a model's answer, or None for other steps and failed steps."""
    if name not in ANSWERS or value is None:
        return None
    said = _object(value)
    if said is None or said.get("kind") != "response" or not isinstance(said.get("parts"), list):
        return None
    parts = [one for one in said["parts"] if isinstance(one, dict)]
    usage = said.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return ModelAnswer(
        model=_text(said, "model_name"),
        provider=_text(said, "provider_name"),
        response_id=_text(said, "provider_response_id"),
        finish_reason=_text(said, "finish_reason"),
        input_tokens=_count(usage, "input_tokens"),
        output_tokens=_count(usage, "output_tokens"),
        cost=_cost(usage),
        texts=tuple(
            one["content"] for one in parts if one.get("part_kind") == "text" and isinstance(one.get("content"), str)
        ),
        calls=tuple(
            ToolUse(one["tool_name"], _arguments(one.get("args")), _text(one, "tool_call_id"))
            for one in parts
            if one.get("part_kind") == "tool-call" and isinstance(one.get("tool_name"), str)
        ),
    )


class CallUsage(NamedTuple):
    """The usage of a model call. `usd` is None if the model's price is not known."""

    model: str | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    """Input tokens read from the provider's cache."""
    usd: float | None


def call_usage(name: str | None, value: bytes | None) -> CallUsage | None:
    """Read the usage without decoding the answer. None for other steps and failed steps."""
    if name not in ANSWERS or value is None:
        return None
    try:
        said = _answer(value)
    except (msgspec.MsgspecError, ValueError):
        return None
    if said.kind != "response":
        return None
    used = said.usage
    cost = _cost({"cost": used.cost})
    return CallUsage(
        said.model_name if isinstance(said.model_name, str) else None,
        max(used.input_tokens, 0),
        max(used.output_tokens, 0),
        max(used.cache_read_tokens, 0),
        None if cost is None else float(cost),
    )


class _Used(msgspec.Struct, frozen=True):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cost: Any = None


class _Answer(msgspec.Struct, frozen=True):
    kind: Any = None
    model_name: Any = None
    usage: _Used = _Used()


_answer: Final = msgspec.json.Decoder(_Answer).decode


def tool_step(name: str | None, key: str | None) -> ToolStep | None:
    kind, _, tool = (name or "").partition(".")
    if kind not in _TOOLS or not tool or tool == "validate":
        return None
    marked, _, rest = (key or "").rpartition("/")[2].partition(":")
    if marked != kind:
        return None
    return ToolStep(tool, _TOOLS[kind], rest.removeprefix(f"{tool}:").partition(":")[0] or None)


def tool_outcome(value: bytes) -> Any:
    """Return a tool's value as the model gets it."""
    said = _tool_said(value)
    match said.get("kind"):
        case "tool_return" | "tool_content_result":
            result = said.get("result")
            if isinstance(result, dict) and result.get("kind") == "tool-return":
                return result.get("return_value")
            return result
        case "approval_required":
            return "waits for approval"
        case "call_deferred":
            return "waits for an answer"
        case _:
            return said.get("message") or said.get("title")


def tool_status(ok: bool, value: bytes | None) -> str:
    """Return completed, failed or waiting."""
    kind = None if value is None else _tool_said(value).get("kind")
    if kind in ("approval_required", "call_deferred"):
        return "waiting"
    return "completed" if ok and kind in (None, "tool_return", "tool_content_result") else "failed"


def genai_attributes(name: str | None, key: str | None, value: bytes | None) -> dict[str, Any]:
    """Return the attributes of the GenAI conventions; empty for other steps."""
    tool = tool_step(name, key)
    if tool is not None:
        return {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool.name,
            "gen_ai.tool.type": tool.kind,
            "gen_ai.tool.call.id": tool.call_id,
        }
    if name not in ANSWERS:
        return {}
    answer = model_answer(name, value)
    if answer is None:
        return {"gen_ai.operation.name": "chat"}
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": answer.provider,
        "gen_ai.request.model": answer.model,
        "gen_ai.response.model": answer.model,
        "gen_ai.response.id": answer.response_id,
        "gen_ai.response.finish_reasons": None if answer.finish_reason is None else [answer.finish_reason],
        "gen_ai.usage.input_tokens": answer.input_tokens,
        "gen_ai.usage.output_tokens": answer.output_tokens,
        "operation.cost": None if answer.cost is None else float(answer.cost),
    }


def genai_name(attributes: Mapping[str, Any]) -> str | None:
    operation = attributes.get("gen_ai.operation.name")
    if operation is None:
        return None
    subject = attributes.get("gen_ai.tool.name") or attributes.get("gen_ai.request.model")
    return operation if subject is None else f"{operation} {subject}"


def _tool_said(value: bytes) -> dict[str, Any]:
    """Return the value without the usage around it; empty if the value is not an object."""
    said = _object(value) or {}
    if said.keys() == {"usage", "value"}:
        inner = said["value"]
        return inner if isinstance(inner, dict) else {}
    return said


def _object(value: bytes) -> dict[str, Any] | None:
    try:
        said = msgspec.json.decode(value)
    except msgspec.MsgspecError:
        return None
    return said if isinstance(said, dict) else None


def _text(said: Mapping[str, Any], name: str) -> str | None:
    found = said.get(name)
    return found if isinstance(found, str) and found else None


def _count(said: Mapping[str, Any], name: str) -> int:
    found = said.get(name)
    return found if isinstance(found, int) and found >= 0 else 0


def _cost(usage: Mapping[str, Any]) -> str | None:
    """Return the cost as text: the library writes text, so no digit is lost."""
    found = usage.get("cost")
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return None
    try:
        return str(found) if math.isfinite(float(found)) else None
    except (ValueError, OverflowError):
        return None


def _arguments(given: Any) -> Any:
    """Decode the arguments, which providers send as JSON or as a string of JSON."""
    if not isinstance(given, str):
        return given
    try:
        return msgspec.json.decode(given)
    except msgspec.MsgspecError:
        return given
