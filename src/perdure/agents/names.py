"""The names of an agent's steps. Journals hold these names: a changed name blocks open executions.

A *key* identifies a call. Keys depend on the journal alone, for tools on the call id in the recorded answer, and not on
the order of parallel tools. A replay compares the *name*.

    model:1                     model.request       the first request of the run
    tool:refund:call_7          tool.refund         a call of a function tool
    mcp:search:call_8           mcp.search          a call of an MCP server's tool
    tools:crm:1                 tools.list          which tools a dynamic or MCP toolset has
    hook.before:nap:call_9      hook.before         a hook of a tool that is not a step (`code_calls`)
"""

import hashlib
import re
from typing import Any, Final

from pydantic_ai import durable_exec

PART_MAX: Final = 100
_UNSAFE: Final = re.compile(r"[^\w.\-]")
TOOL_NAME_MAX: Final = 64
_NO_TOOL_NAME: Final = re.compile(r"\W", re.ASCII)


def step_name(
    operation: durable_exec.DurableOperationId, tool_name: str = "", tool_call_id: str | None = None
) -> tuple[str, str]:
    """The name and the key. A key ending in `:` is always numbered."""
    call = f"{part(tool_name)}:{part(tool_call_id or 'call')}"
    match operation:
        case durable_exec.ModelRequestId():  # streamed or not: the answer is the same
            return "model.request", "model:"
        case durable_exec.ModelCompactMessagesId():
            return "model.compact", "compact:"
        case durable_exec.ModelCancelSuspendedResponseId():
            return "model.cancel", "model-cancel:"
        case durable_exec.ToolsetCallToolId(toolset_kind="mcp"):
            return f"mcp.{part(tool_name)}", f"mcp:{call}"
        case durable_exec.ToolsetCallToolId():
            return f"tool.{part(tool_name)}", f"tool:{call}"
        case durable_exec.ToolsetValidateToolArgumentsId():
            return "tool.validate", f"validate:{call}"
        case durable_exec.ToolsetGetToolsId(toolset_id=id):
            return "tools.list", f"tools:{part(id)}:"
        case durable_exec.ToolsetGetInstructionsId(toolset_id=id):
            return "tools.instructions", f"instructions:{part(id)}:"
        case durable_exec.CapabilityOperationId(capability_id=id, operation=name):
            return f"capability.{part(name)}", f"capability:{part(id)}.{part(name)}:"
        case _:  # of a later release of the library
            kind = type(operation).__name__
            return f"operation.{kind}", f"operation:{kind}:"


def part(text: str) -> str:
    """A text as part of a key. A long text ends in a hash.

    >>> part("call_7"), part("a/b#2")
    ('call_7', 'a-b-2')
    """
    safe = _UNSAFE.sub("-", text)
    if len(safe) <= PART_MAX:
        return safe or "-"
    return f"{safe[: PART_MAX // 2]}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def as_tool_name(text: str) -> str:
    """A text as a tool name accepted by all providers.

    >>> as_tool_name("support-desk"), as_tool_name("Café/Billing 2")
    ('support_desk', 'Caf__Billing_2')
    """
    return _NO_TOOL_NAME.sub("_", text)[:TOOL_NAME_MAX]


class Keys:
    """The keys of one run, each used once: a provider may repeat call ids, and an approved tool runs under its old
    id."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        """Empty for the agent that owns the execution."""
        self._given: dict[str, int] = {}

    def again(self, key: str) -> str:
        number = self._given[key] = self._given.get(key, 0) + 1
        if key.endswith(":"):
            return f"{self.prefix}{key}{number}"
        return f"{self.prefix}{key}" if number == 1 else f"{self.prefix}{key}:{number}"


def key_prefix(scoped: str) -> str:
    return f"{scoped.replace('/', '.').replace('#', '.')}/"


def described(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)
