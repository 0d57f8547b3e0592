"""One run of an agent in an execution: where its steps go, and what it has to remember."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from msgspec import Raw

from perdure.agents.names import Keys
from perdure.sdk.payloads.values import encode
from perdure.sdk.steps import step_variables

if TYPE_CHECKING:
    from perdure.agents.calls import CallHook
    from perdure.agents.inputs import AgentInput
    from perdure.sdk.context import Context

StopReason: TypeAlias = Literal["stop", "watchdog", "budget"]
"""What made an agent answer before it was done, by the name of the option that says when."""
STOPPED: Final = "stopped"
"""Under this name the progress of an agent's execution says what stopped it."""


class AgentRun:
    """One run of a durable agent. All it holds is a function of the execution's journal, so a replay makes it again."""

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
        """Those that the program gave, without ours, which look at models only."""
        self.given = given
        """What it was started with."""
        self.has_error_hooks = has_error_hooks
        """Whether the program does something about failed requests to the model: it comes before our waits."""
        self.refusals = 0
        """How often the run has waited for the provider in the request that it is making."""
        self.keys = Keys(prefix)
        self.id = f"{ctx.execution_id}/{prefix}".rstrip("/")
        """The run's id among messages: the execution's, unless the agent runs inside another workflow."""
        self.has_begun = False
        """Whether the library runs its agent: another agent's run in its code is not this one."""
        self.finishing: str | None = None
        """Why the agent is to answer now, with what it has: it gets no tools any more."""
        self.told: set[str] = set()
        """The calls of which the stream says that they are made, and not yet what came of them, where we tell that."""
        self.last_call = b""
        """What the watchdog saw last, and how often in a row."""
        self.rounds = 0

    def finish(self, by: StopReason, why: str) -> None:
        """Have the agent answer now. Part of its code: a replay says so again, at the same place."""
        if self.finishing is None:
            self.finishing = why
            self.ctx.log("The agent is to answer now: %s", why)
            self.tell_stop(by, why)

    def tell_stop(self, by: StopReason, why: str) -> None:
        """Have the execution say that the agent did not end by itself; inside another workflow that has its own say."""
        if not self.keys.prefix and not self.ctx.machine.replaying:
            said = {STOPPED: by, "text": f"ended early ({by}): {why}"}
            self.ctx.progress_news[:] = [Raw(encode(said, where="progress"))]

    async def ask(self, key: str, shown: object, timeout: float | None = None) -> Any:
        """Show something to whoever is asked, and wait for the answer, suspended. Raises `TimeoutError`."""
        with self.apart(key):
            return await self.ctx.suspend(key, shown, timeout=timeout)

    def apart(self, name: str) -> AbstractContextManager[None]:
        """What waits or asks inside of the block under no key of its own is named by this. It stands in tasks of the
        library, and how many of those there are changes with its releases, with toolsets and with hooks."""
        return self.ctx.machine.loop.within(name)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """While the block runs, it is the current one. Its steps see the context variables from before the block: the
        library sets some that are for the agent's own code, such as the executor of its sync functions."""
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
    """The durable run whose code is running: None in steps, and outside of executions."""
    run = _current.get()
    return run if run is not None and run.ctx.is_active else None
