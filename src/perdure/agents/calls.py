"""What happens around each call of a model or a tool: the place for whoever counts, limits or watches calls."""

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
    """One call that is about to be made.

    `name` is the model's or the tool's. `current_step()` names the step, its try, and the key by which outside effects
    can be told apart from repeats.
    """

    kind: CallKind
    name: str
    execution_id: str
    agent_name: str
    run_context: RunContext[Any]
    tool_call_id: str | None = None
    arguments: dict[str, Any] | None = None
    request: ModelRequestParams | None = None
    """What the model is asked; None for tools."""


async def hooked(hooks: Sequence[CallHook], call: Call, make: Callable[[], Awaitable[T]]) -> T:
    """Make a call with its hooks around it."""
    try:
        for hook in hooks:
            await hook.before(call)
        result = await make()
    except Exception as error:
        for hook in hooks:
            await hook.failed(call, error)
        raise
    for hook in reversed(hooks):  # what it cost is known, and settled, before a hook of the program's may object
        await hook.after(call, result)
    return result


class CallHook:
    """Comes before and after each call of a model and of a tool, inside the call's step.

    A subclass overrides what it needs. An exception of `before` is the call's outcome, and the call is not made; one of
    `after` takes the place of its result. `ModelRetry` is what the library means by it: of a tool's call the model
    hears it as the call's result, and for its own call it is asked again, without the answer that `after` had seen. For
    a tool `ToolFailed`, `ApprovalRequired` and `CallDeferred` count, too (the last two not for one that is external: it
    waits for somebody as it is). Any other fails the call's step.

    What a replay finds recorded is not called again, and neither are these: they belong to the call, not to the code
    around it. A tool that is no step (one with `{"perdure": False}`, `ask_user`, an agent by `as_tool`, an external
    one) has each of them as a step of its own, if they override it.

        class Log(CallHook):
            async def after(self, call: Call, result: Any) -> None:
                print(call.kind, call.name)

        support = durable(agent, hooks=[Log()])
    """

    async def before(self, call: Call) -> None:
        """The call is about to be made."""

    async def after(self, call: Call, result: Any) -> None:
        """It was made; `result` is the model's answer (`result.usage.cost` in dollars, where it is known), or what the
        tool gave. The last hook that came before it is the first that comes after it."""

    async def failed(self, call: Call, error: Exception) -> None:
        """It, or a `before`, raised: a failure, or what it told the library (`ModelRetry` and its like)."""
