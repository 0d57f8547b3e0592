from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Raw

from perdure.agents.names import Keys
from perdure.sdk.base.errors import BudgetExceeded
from perdure.sdk.payloads.values import encode
from perdure.sdk.workers import plain_agents
from perdure.sdk.workflows.steps import step_variables
from perdure.wire.agents.agent_runs import OVER_BUDGET, STOPPED

if TYPE_CHECKING:
    from perdure.agents.calls import CallHook
    from perdure.agents.inputs import AgentInput
    from perdure.sdk.workflows.context import Context

StopReason: TypeAlias = Literal["stop", "watchdog", "budget"]
"""The option that made an agent answer early."""


class AgentRun:
    """One run of an agent. The state depends on the journal alone, so a replay restores the run."""

    def __init__(
        self,
        ctx: Context,
        agent_name: str,
        hooks: Sequence[CallHook],
        own_hooks: Sequence[CallHook],
        given: AgentInput,
        prefix: str = "",
        *,
        has_error_hooks: bool = False,
    ) -> None:
        self.ctx = ctx
        self.agent_name = agent_name
        self.hooks = hooks
        self.own_hooks = own_hooks
        """The program's hooks."""
        self.given = given
        self.has_error_hooks = has_error_hooks
        self.refusals = 0
        """Number of the current request's waits for the provider."""
        self.keys = Keys(prefix)
        self.id = f"{ctx.machine.seed}/{prefix}".rstrip("/")
        self.has_begun = False
        """Whether the agent has started. Its code may then run another agent."""
        self.finishing: str | None = None
        """The reason why the agent must answer now."""
        self.finished_by: StopReason | None = None
        self.exceeded: BudgetExceeded | None = None
        """Set if a budget ended the run early."""
        self.emitted_calls: set[str] = set()
        """Emitted calls without a result yet."""
        self.last_call = b""
        """The watchdog's last call. `rounds` counts the repeats."""
        self.rounds = 0

    def finish(self, by: StopReason, why: str) -> None:
        if self.finishing is None:
            self.finishing, self.finished_by = why, by
            self.ctx.log("The agent is to answer now: %s", why)
            if by == "budget":
                self.exceeded = BudgetExceeded(why)
            self._report_stop(by, why)

    def end_over(self, exceeded: BudgetExceeded) -> None:
        """The run ends with the last words so far."""
        self.ctx.log("The agent ends with what it has: %s", exceeded.message)
        self.exceeded = exceeded
        self._report_stop("budget", exceeded.message)

    def end(self, output: object) -> None:
        """Raises BudgetExceeded inside another workflow, which could not tell last words from an answer. A child
        reports the excess together with the end, and `ctx.run_child` raises the error."""
        if self.exceeded is None:
            return
        if self.keys.prefix:
            said = f"Agent {self.agent_name!r} {OVER_BUDGET}: {self.exceeded.message}"
            raise BudgetExceeded(said, self.exceeded.details, answer=output)
        if self.ctx.parent_execution_id is not None:
            self._put_stop("budget", self.exceeded.message)

    def _report_stop(self, by: StopReason, why: str) -> None:
        """Report the stop as the execution's progress, unless another workflow runs the agent."""
        if not self.keys.prefix and not self.ctx.machine.replaying:
            self._put_stop(by, why)

    def _put_stop(self, by: StopReason, why: str) -> None:
        said = {STOPPED: by, "text": f"ended early ({by}): {why}"}
        self.ctx.pending_progress[:] = [Raw(encode(said, where="progress"))]

    async def ask(self, key: str, shown: object, timeout: float | None = None) -> Any:
        """Raises `TimeoutError`."""
        with self.apart(key):
            return await self.ctx.suspend(key, shown, timeout=timeout)

    def apart(self, name: str) -> AbstractContextManager[None]:
        """Name waits and questions without a key after `name`, because the number of the library's tasks varies with
        its release, toolsets and hooks."""
        return self.ctx.machine.loop.within(name)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Steps keep the context variables from before the block, because the library sets some for the agent's code
        only, such as the executor of sync functions."""
        outer = step_variables.get()
        variables = step_variables.set(copy_context() if outer is None else outer)
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            step_variables.reset(variables)


_current: ContextVar[AgentRun | None] = ContextVar("perdure_agent_run", default=None)


def current_run() -> AgentRun | None:
    """Returns None in steps and outside executions."""
    run = _current.get()
    return run if run is not None and run.ctx.is_active else None


def _begins() -> bool:
    run = current_run()
    if run is None or run.has_begun:
        return False
    run.has_begun = True
    return True


plain_agents.begins_durable_run = _begins
