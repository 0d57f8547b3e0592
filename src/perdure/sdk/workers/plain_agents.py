"""Refuses plain agents in workflow code: runs of plain agents are not recorded, and a replay would ask the model again.

Workers check wherever the library is loaded.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from perdure.sdk.base.errors import Misplaced
from perdure.sdk.workflows.steps import current_context


def _never() -> bool:
    return False


begins_durable_run: Callable[[], bool] = _never
"""`perdure.agents` sets this function, which is true once for each durable run."""


def refuse_plain_agents() -> None:
    """Does nothing if the program has not loaded Pydantic AI."""
    library = sys.modules.get("pydantic_ai.agent")
    if library is None:
        return
    iterate = library.Agent.iter  # each run passes it; the library has no hook for runs
    if getattr(iterate, "_perdure_checked", False):
        return

    @functools.wraps(iterate)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        _check(self)
        return iterate(self, *args, **kwargs)

    checked._perdure_checked = True  # type: ignore[attr-defined]  # any function takes attributes
    library.Agent.iter = checked


def _check(agent: Any) -> None:
    context = current_context.get()
    if context is None or not context.is_active or begins_durable_run():
        return
    name = repr(agent.name or "agent")
    raise Misplaced(
        f"The agent {name} runs in workflow code, where nothing is recorded: a replay would ask its model again. Make "
        "it durable, `from perdure.agents import durable` and `support = durable(agent)`, and call it by "
        '`await support(ctx, "…")` or `await ctx.run_child(support, "…")`. To record only its output, run it in a step.'
    )
