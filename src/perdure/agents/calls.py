from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic_ai.durable_exec import ModelRequestParams
from pydantic_ai.tools import RunContext

T = TypeVar("T")

CallKind = Literal["model", "tool", "mcp"]


@dataclass(frozen=True)
class Call:
    """A call about to be made.

    `name` is the model's or the tool's. `current_step()` gives the step, try and idempotency key.
    """

    kind: CallKind
    name: str
    execution_id: str
    agent_name: str
    run_context: RunContext[Any]
    tool_call_id: str | None = None
    arguments: dict[str, Any] | None = None
    request: ModelRequestParams | None = None
    """None for tools."""


async def hooked(hooks: Sequence[CallHook], call: Call, make: Callable[[], Awaitable[T]]) -> T:
    try:
        for hook in hooks:
            await hook.before(call)
        result = await make()
    except Exception as error:
        for hook in hooks:
            await hook.failed(call, error)
        raise
    for hook in reversed(hooks):  # the cost is settled before a hook can raise
        await hook.after(call, result)
    return result


class CallHook:
    """Runs before and after each call of a model or tool, inside the call's step.

    If `before` raises, the exception becomes the outcome of the call, which is not made. If `after` raises, the
    exception replaces the result. An exception fails the step, except for three kinds of Pydantic AI:

    - `ModelRetry`: the model sees a tool's error as the result. If its own call raised, the model is asked again.
    - `ToolFailed`, `ApprovalRequired` and `CallDeferred` work for tools, but only the first for external tools.

    A replay repeats neither recorded calls nor their hooks. If a tool is not a step (`{"perdure": False}`, `ask_user`,
    `as_tool`, external), each overridden method is a separate step.

        class Log(CallHook):
            async def after(self, call: Call, result: Any) -> None:
                print(call.kind, call.name)

        support = durable(agent, hooks=[Log()])
    """

    async def before(self, call: Call) -> None:
        """The call is about to be made."""

    async def after(self, call: Call, result: Any) -> None:
        """Hooks run in reverse order. `result` is the tool's or the model's; `result.usage.cost` is in dollars, if
        known."""

    async def failed(self, call: Call, error: Exception) -> None:
        """The call or a `before` raised a failure or a signal."""
