"""Refuses plain agents in workflow code: their runs are not recorded, and a replay would ask the model again."""

from __future__ import annotations

import functools
from typing import Any

from pydantic_ai.agent import Agent

from perdure.agents.runs import current_run
from perdure.sdk.errors import Misplaced
from perdure.sdk.steps import current_context


def refuse_plain_runs() -> None:
    iterate = Agent.iter  # each run passes it; the library has no hook for runs
    if getattr(iterate, "_perdure_checked", False):
        return

    @functools.wraps(iterate)
    def checked(self: Agent[Any, Any], *args: Any, **kwargs: Any) -> Any:
        _check(self)
        return iterate(self, *args, **kwargs)

    checked._perdure_checked = True  # type: ignore[attr-defined]  # any function takes attributes
    Agent.iter = checked  # type: ignore[method-assign]  # the library has no hook for this


def _check(agent: Agent[Any, Any]) -> None:
    context = current_context.get()
    if context is None or not context.is_active:
        return
    run = current_run()
    if run is not None and not run.has_begun:
        run.has_begun = True
        return
    name = repr(agent.name or "agent")
    raise Misplaced(
        f"The agent {name} runs in workflow code, where nothing is recorded: a replay would ask its model again. Make "
        'it durable, `support = durable(agent)`, and call it by `await support(ctx, "…")` or '
        '`await ctx.run_child(support, "…")`. To record only its output, run it in a step.'
    )
