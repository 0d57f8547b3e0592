"""Hooks around the calls of tools that are not steps.

A replay runs the code around a recorded call again, so hooks run in separate steps.

    hook.before:pause:c1       before the call
    hook.after:pause:c1        after it
    hook.failed:pause:c1       after it raised
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

from pydantic_ai.tools import RunContext
from pydantic_ai.toolsets import AbstractToolset, FunctionToolset, ToolsetTool, WrapperToolset

from perdure.agents.calls import Call, CallHook
from perdure.agents.names import part
from perdure.agents.outcomes import from_signal, to_signal
from perdure.agents.runs import AgentRun, current_run
from perdure.agents.steps import TOOL_KEY, is_code

T = TypeVar("T")

Moment = Literal["before", "after", "failed"]


async def hooked_code(
    run: AgentRun,
    ctx: RunContext[Any],
    tool: str,
    tool_call_id: str | None,
    arguments: dict[str, Any],
    make: Callable[[], Awaitable[T]],
) -> T:
    call = Call("tool", tool, run.ctx.execution_id, run.agent_name, ctx, tool_call_id=tool_call_id, arguments=arguments)
    try:
        await _run_hooks(run, "before", call, lambda hook: hook.before(call))
        result = await make()
    except Exception as error:
        failure = error
        await _run_hooks(run, "failed", call, lambda hook: hook.failed(call, failure))
        raise
    await _run_hooks(run, "after", call, lambda hook: hook.after(call, result))
    return result


async def _run_hooks(run: AgentRun, moment: Moment, call: Call, notify: Callable[[CallHook], Awaitable[None]]) -> None:
    """Raises the signal of a hook."""
    hooks = [one for one in run.own_hooks if getattr(type(one), moment) is not getattr(CallHook, moment)]
    if not hooks:
        return

    async def notify_all() -> dict[str, Any] | None:
        try:
            for hook in reversed(hooks) if moment == "after" else hooks:
                await notify(hook)
        except Exception as error:
            if (signal := to_signal(error)) is None:
                raise
            return signal
        return None

    key = run.keys.again(f"hook.{moment}:{part(call.name)}:{part(call.tool_call_id or 'call')}")
    signal = await run.ctx.step(f"hook.{moment}", notify_all, key=key)
    if signal is not None:
        raise from_signal(signal)


class HookedCode(WrapperToolset[Any]):
    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        run = current_run()
        if run is None or not is_code(tool.tool_def):
            return await super().call_tool(name, tool_args, ctx, tool)
        make = functools.partial(super().call_tool, name, tool_args, ctx, tool)
        return await hooked_code(run, ctx, name, ctx.tool_call_id, tool_args, make=make)


def marked_as_code(toolset: AbstractToolset[Any]) -> AbstractToolset[Any]:
    """The library has no steps for the tools of an unknown toolset class."""
    return toolset if isinstance(toolset, FunctionToolset) else toolset.with_metadata(**{TOOL_KEY: False})
