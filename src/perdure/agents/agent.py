"""`durable(agent)`: an agent as a workflow."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, Generic, TypeGuard, TypeVar, Unpack, get_origin

from msgspec import structs
from pydantic_ai.agent import AbstractAgent, Agent, EventStreamHandler
from pydantic_ai.capabilities import AbstractCapability, ModelFallback, ProcessEventStream
from pydantic_ai.durable_exec import external_event_scope, replay_scope
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models import Model, infer_model
from pydantic_ai.tools import RunContext, Tool
from pydantic_ai.toolsets import FunctionToolset
from pydantic_ai.usage import UsageLimits

from perdure.agents.approvals import Waiter, ask_user_tool
from perdure.agents.budgets import Price, Spending
from perdure.agents.calls import CallHook
from perdure.agents.conversation import Compaction, Delivered, SessionTurn
from perdure.agents.definitions import agent_spec
from perdure.agents.durability import PerdureDurability
from perdure.agents.failures import AskedAgain
from perdure.agents.guards import InputGuard, OutputGuard, OutputGuards, guarded_prompt
from perdure.agents.inputs import AgentPayload, Prompt, as_input, make_input
from perdure.agents.limits import Waits
from perdure.agents.names import as_tool_name, key_prefix, part
from perdure.agents.options import DurableOptions, RunOptions, check_start_options
from perdure.agents.outputs import check_apart, output_hint, schema_name
from perdure.agents.overrides import Overrides
from perdure.agents.runs import AgentRun, current_run
from perdure.agents.steps import TOOL_KEY, StepOptions
from perdure.agents.stops import StopCondition
from perdure.agents.streaming import AgentStream
from perdure.sdk.base.errors import BudgetExceeded, Misplaced
from perdure.sdk.clients.client import Client, Handle
from perdure.sdk.payloads.values import encode
from perdure.sdk.replay.inline_executor import InlineExecutor
from perdure.sdk.workflows.context import Context
from perdure.sdk.workflows.start_options import Budget, StartOptions
from perdure.sdk.workflows.steps import current_step, is_async_callable
from perdure.sdk.workflows.workflow import Workflow, declare
from perdure.wire.agents.agent_runs import early_end
from perdure.wire.base.errors import BadValue
from perdure.wire.runs.executions import GetExecution
from perdure.wire.runs.requests import AgentSpec, WorkflowSpec
from perdure.wire.runs.workflows import WorkflowType

DepsT = TypeVar("DepsT")
OutT = TypeVar("OutT")
OutT_co = TypeVar("OutT_co", covariant=True)

WATCHDOG: Final = 5
OVERRIDDEN: Final = "perdure.overridden"
_INLINE: Final = InlineExecutor()


class DurableAgent(Workflow[AgentPayload, OutT_co], Generic[DepsT, OutT_co]):
    """An agent as a workflow, made by `durable`. Each execution is one run.

    Start the agent with `start`, `client.start(agent, "…")` or `ctx.run_child(agent, "…")`. `await agent(ctx, "…")`
    runs inside the calling workflow's execution.
    """

    def __init__(
        self,
        agent: AbstractAgent[DepsT, OutT_co],
        *,
        name: str | None = None,
        deps: DepsT | Callable[[Context], DepsT] | None = None,
        models: Mapping[str, Model] | None = None,
        capabilities: Sequence[AbstractCapability[DepsT]] = (),
        hooks: Sequence[CallHook] = (),
        budget: Budget | None = None,
        price: Price | None = None,
        usage_limits: UsageLimits | None = None,
        stop: Sequence[StopCondition] = (),
        input_guards: Sequence[InputGuard] = (),
        output_guards: Sequence[OutputGuard] = (),
        watchdog: int | None = WATCHDOG,
        ask_user: bool = False,
        answer_timeout: float | None = None,
        stream: bool | None = None,
        event_stream_handler: EventStreamHandler[DepsT] | None = None,
        model_step: StepOptions | None = None,
        tool_step: StepOptions | None = None,
        compaction: Compaction | None = None,
        **options: Any,
    ) -> None:
        name = name or agent.name
        if name is None:
            raise ValueError(
                "A durable agent needs a name: Agent(…, name='support') or durable(agent, name='support')."
            )
        functions = [("deps", deps), ("price", price), *(("stop", condition) for condition in stop)]
        for option, function in functions:
            if callable(function) and is_async_callable(function):
                raise TypeError(f"{option} of agent {name!r} must be a synchronous function; {function!r} is async.")
        hint = output_hint(agent.output_type)
        check_apart(hint)
        self.agent = agent
        self._overrides = Overrides(agent)
        self._deps = deps
        self._given_capabilities = tuple(capabilities)
        self._given_models = dict(models or {})
        self._models = {**self._fallback_models(), **self._given_models}
        self._budget = budget
        self._own_hooks = tuple(hooks)
        # Last: nothing is reserved for a call that another hook prevents.
        self._spending = Spending(budget, price)
        self._hooks = (*hooks, self._spending)
        self._usage_limits = usage_limits
        self._input_guards = tuple(input_guards)
        self._bounds: dict[str, Any] = {
            "stream": stream,
            "event_stream_handler": event_stream_handler,
            "model_step": model_step,
            "tool_step": tool_step,
            "stop": stop,
            "watchdog": watchdog,
            "answer_timeout": answer_timeout,
        }
        self._compaction = compaction
        self._delivered = Delivered(input_guards)
        self._output_hint = hint
        self._toolsets = [FunctionToolset([ask_user_tool(answer_timeout)], id="perdure")] if ask_user else None
        guards = [OutputGuards(output_guards, hint)] if output_guards else []
        again = [AskedAgain()] if hooks else []
        self._capabilities: list[AbstractCapability[Any]] = [*capabilities, *guards, *again]

        async def run(ctx: Context, input: Any) -> Any:
            return await self._run_overridden(ctx, input, "")

        run.__name__ = run.__qualname__ = name
        run.__module__ = type(agent).__module__
        run.__doc__ = agent.description if isinstance(agent.description, str) else None
        run.__annotations__ = {"ctx": Context, "input": AgentPayload, "return": hint}
        super().__init__(run, name=name, output_schema_name=schema_name(hint), **options)
        self._check_listeners(event_stream_handler is not None)
        # A toolset without an id raises here, not in the first run.
        self._bound = self._bind(self._models)
        self._models_are_known = not isinstance(agent.model, str) or agent.root_capability.has_resolve_model_id

    def starting(self, outside: Mapping[ContextVar[Any], Any] | None) -> None:
        self._overrides.check_start(self.name, outside)

    def unpriced(self) -> list[str]:
        given = (self.agent.model, *self._given_models.values())
        return self._spending.unpriced(model for model in given if model is not None)

    def spec(self) -> WorkflowSpec:
        return structs.replace(super().spec(), type=WorkflowType.AGENT, agent=self._definition)

    @functools.cached_property
    def _definition(self) -> AgentSpec:
        return agent_spec(self.name, self.agent, self.output_schema_name or "Any")

    def input(
        self,
        prompt: Prompt = None,
        *,
        deps: DepsT | None = None,
        message_history: Sequence[ModelMessage] | None = None,
        model: str | None = None,
        usage_limits: UsageLimits | None = None,
    ) -> AgentPayload:
        """The payload of a run, for `client.start` and `ctx.run_child`. Raises `BadValue`.

        >>> await ctx.run_child(support, support.input("Where is it?", deps=Shop(7)))       # doctest: +SKIP
        """
        self._check_model(model)
        return make_input(prompt, deps, self.agent.deps_type, message_history, model, usage_limits=usage_limits)

    async def start(
        self,
        client: Client,
        prompt: Prompt = None,
        *,
        deps: DepsT | None = None,
        message_history: Sequence[ModelMessage] | None = None,
        model: str | None = None,
        usage_limits: UsageLimits | None = None,
        **options: Unpack[StartOptions],
    ) -> Handle[OutT_co]:
        """Start a run. On return the run is on disk. Takes the options of `client.start`.

        With a `session_id` the run is a turn of a conversation: the model sees earlier messages, and the run waits for
        earlier turns. While a turn is open, `on_conflict="reject"` raises `SessionBusy`, and `"deliver"` gives the
        message to the running turn, whose output both return. A message with a history, or with other `deps`, `model`
        or `usage_limits` than the open turn, still waits.

        `deps` travel as JSON, by the agent's `deps_type`. Give connections and clients to `durable`. `model` is a name
        from `durable(agent, models={…})`. Other options of Pydantic AI's `run` raise `TypeError`.

        >>> handle = await support.start(client, "Where is my parcel?", session_id="ann")     # doctest: +SKIP
        >>> (await handle.result()).text                                                    # doctest: +SKIP
        """
        check_start_options(options)
        payload = self.input(prompt, deps=deps, message_history=message_history, model=model, usage_limits=usage_limits)
        if options.get("session_id") is not None and "delay" not in options and "at" not in options:
            options.setdefault("on_conflict", "queue")
        return await client.start(self, payload, **options)

    async def run(self, client: Client, prompt: Prompt = None, **options: Unpack[RunOptions[DepsT]]) -> OutT_co:
        """Start a run and wait for the output. Raises `ExecutionFailed` or `ExecutionCancelled`."""
        handle = await self.start(client, prompt, **options)
        return await handle.result()

    def stream(
        self, client: Client, prompt: Prompt = None, **options: Unpack[RunOptions[DepsT]]
    ) -> AgentStream[OutT_co]:
        """A run to follow: items like `events`, then `ExecutionFailed` or `ExecutionCancelled` for a run without an
        output.

        >>> async for item in support.stream(client, "Where is my parcel?"):               # doctest: +SKIP
        ...     print(item.text, end="")
        """
        return AgentStream(functools.partial(self.start, client, prompt, **options))

    def __call__(self, ctx: Context, input: AgentPayload = None, /) -> Coroutine[object, None, OutT_co]:
        """Run the agent inside the calling workflow's execution, which takes over the agent's own budget.

        Raises `BudgetExceeded` if a budget ends the run; the error's `answer` is the agent's output so far, or None.
        Raises `Misplaced` if the execution has another agent's budget.

        >>> async def report(ctx: Context, question: str) -> str:
        ...     try:
        ...         return await research(ctx, question)
        ...     except BudgetExceeded as exceeded:
        ...         return f"unfinished: {exceeded.answer}"
        """
        if self._budget is not None:
            if ctx.budget_of not in (None, self.name):
                raise Misplaced(
                    f"Agent {self.name!r} has its own budget, but this execution already has that of agent "
                    f"{ctx.budget_of!r}. Run one of them by ctx.run_child(agent, …), or give the workflow one budget."
                )
            ctx.budget_of = self.name
        prefix = key_prefix(ctx.machine.loop.key_for(f"agent:{self.name}"))
        return ctx.machine.begins(f"agent {self.name!r}", functools.partial(self._run_overridden, ctx, input, prefix))

    def as_tool(self, *, name: str | None = None, description: str | None = None) -> Tool[Any]:
        """This agent as a tool of another agent. Each call is a child execution.

        The default name is the agent's, with `_` for characters that providers refuse. An agent without own `deps` gets
        the calling agent's `deps`, if of the right `deps_type`. A call raises `BadValue` for `deps` outside JSON. A
        call ended early by a budget is a failed call with the agent's last words.

        >>> router = durable(Agent(MODEL, name="router", tools=[support.as_tool()]))        # doctest: +SKIP
        """

        async def hand_over(ctx: RunContext[Any], prompt: str) -> Any:
            run = current_run()
            if run is None:
                return (await self.agent.run(prompt, deps=self._deps_outside(ctx.deps))).output
            call = f"{part(self.name)}:{part(ctx.tool_call_id or 'call')}"
            key = run.keys.again(f"child:{call}")
            deps = self._taken(ctx.deps) if self._deps is None else None
            given = self.input(prompt, deps=deps)
            try:
                if self._budget is None:
                    return await run.ctx.run_child(self, given, key=key)
                child = await run.ctx.start_child(self, given, key=key)
                output = await child.result()
            except BudgetExceeded as exceeded:
                raise self._unfinished(exceeded.message, exceeded.answer) from None
            # Older journals need this step: their child ends do not record the early end.
            early = await run.ctx.step("child.early_end", _early_end, child.id, key=run.keys.again(f"early_end:{call}"))
            if early is not None:
                raise self._unfinished(f"Agent {self.name!r} {early}", output)
            return output

        said = description or self.agent.description
        return Tool(
            hand_over,
            name=name or as_tool_name(self.name),
            description=said if isinstance(said, str) else f"Hand over to the agent {self.name!r}.",
            takes_ctx=True,
            metadata={TOOL_KEY: False},
        )

    def _unfinished(self, ended: str, output: Any) -> ToolFailed:
        words = encode(output, self._output_hint, where="result").decode()
        return ToolFailed(f"{ended} Until then it had: {words}")

    async def _run_overridden(self, ctx: Context, payload: AgentPayload, prefix: str) -> Any:
        with self._overrides.as_in(ctx.outside) as overridden:
            return await self._run_agent(ctx, payload, prefix, self._durability(overridden))

    async def _run_agent(
        self, ctx: Context, payload: AgentPayload, prefix: str, durability: AbstractCapability[Any]
    ) -> Any:
        given = as_input(payload)
        deps = self._given_deps(ctx) if given.deps is None else given.dependencies(self.agent.deps_type)
        has_error_hooks = self._has_error_hooks()
        run = AgentRun(
            ctx, self.name, self._hooks, self._own_hooks, given, prefix=prefix, has_error_hooks=has_error_hooks
        )
        turn = None if prefix else await SessionTurn.begin(run, self._compaction, self._summarizer())
        history, capabilities = given.messages(), self._capabilities
        if turn is not None:
            if turn.is_over:
                return turn.output(self._output_hint)
            history = turn.history if history is None else history
            capabilities = [*capabilities, self._delivered]
        if has_error_hooks:
            capabilities = [*capabilities, Waits()]
        prompt, limits = given.prompt(), given.limits()
        self._check_model(given.model)
        if self._input_guards:
            prompt = await guarded_prompt(run, self._input_guards, prompt)
        with run.entered(), Agent.using_thread_executor(_INLINE), external_event_scope(Waiter(run)), replay_scope():
            result = await self.agent.run(
                prompt,
                deps=deps,
                message_history=history,
                model=given.model,
                usage_limits=self._usage_limits if limits is None else limits,
                toolsets=self._toolsets,
                capabilities=[*capabilities, durability],
                infer_name=False,
            )
        if turn is not None:
            encode(result.output, self._output_hint, where="result")  # a run that fails here must not add messages
            await turn.end(result.new_messages())
        run.end(result.output)
        return result.output

    def _check_listeners(self, has_handler: bool) -> None:
        found = [one for one in self._capabilities_given() if isinstance(one, ProcessEventStream)]
        if found and not has_handler:
            warnings.warn(
                f"ProcessEventStream of agent {self.name!r} receives each answer of a durable run in one piece, and "
                "again in each replay. Use durable(agent, event_stream_handler=…) to receive it word by word.",
                stacklevel=4,
            )

    def _capabilities_given(self) -> list[AbstractCapability[Any]]:
        found: list[AbstractCapability[Any]] = []
        for one in (self.agent.root_capability, *self._given_capabilities):
            one.apply(found.append)
        return found

    def _check_model(self, name: str | None) -> None:
        if name is not None and not isinstance(name, str):
            raise TypeError(
                f"model: a run names its model, since a start travels as JSON; got a `{type(name).__name__}`. Give the "
                f'model to durable(agent, models={{"name": model}}), and start the run with model="name".'
            )
        if name is None or name in self._given_models or name == self.agent.model:
            return
        said = ", ".join(map(repr, self._given_models)) or "none"
        raise BadValue(
            f"model: {name!r} is not a model of agent {self.name!r}. A run names one of durable(agent, models={{…}}); "
            f"it has {said}."
        )

    def _fallback_models(self) -> dict[str, Model]:
        """`ModelFallback`'s models under generated names, for steps to find."""
        fallbacks = [one for one in self._capabilities_given() if isinstance(one, ModelFallback)]
        found = [model for one in fallbacks for model in one.models if isinstance(model, Model)]
        return {f"perdure.fallback.{number}": model for number, model in enumerate(found, 1)}

    def _has_error_hooks(self) -> bool:
        """Asked at each run, because hooks may be added at any time."""
        given = (self.agent.root_capability, *self._given_capabilities)
        return any(one._has_on_model_request_error for one in given)  # the library has no public way to ask

    def _summarizer(self) -> Model | str | None:
        model = self._overrides.model() or (self._compaction and self._compaction.by) or self.agent.model
        return self._models.get(model, model) if isinstance(model, str) else model

    def _given_deps(self, ctx: Context) -> Any:
        deps = self._deps
        return deps(ctx) if _is_function(deps) else deps

    def _deps_outside(self, deps: Any) -> Any:
        if self._deps is not None and not _is_function(self._deps):
            return self._deps
        taken = self._taken(deps)
        if taken is None and self._deps is not None:
            raise Misplaced(
                f"The dependencies of agent {self.name!r} are a function of the Context, which exists only in an "
                "execution. Give the calling agent dependencies of this agent's deps_type."
            )
        return taken

    def _taken(self, deps: Any) -> Any:
        kind = get_origin(self.agent.deps_type) or self.agent.deps_type
        return deps if isinstance(kind, type) and isinstance(deps, kind) else None

    def _durability(self, overridden: bool) -> AbstractCapability[DepsT]:
        if overridden:  # in a test
            model = self._overrides.model()
            return self._bind({**self._models, OVERRIDDEN: model} if isinstance(model, Model) else self._models)
        if not self._models_are_known:
            # Once per worker: otherwise each request would open its own connections.
            model = self.agent.model
            assert isinstance(model, str)
            if model not in self._models:
                self._bound = self._bind({**self._models, model: infer_model(model)})
            self._models_are_known = True
        return self._bound

    def _bind(self, models: Mapping[str, Model]) -> AbstractCapability[DepsT]:
        model = models.get(OVERRIDDEN, self.agent.model)
        if isinstance(model, str):
            model = models.get(model, model)
        made: PerdureDurability[DepsT] = PerdureDurability(models=models, model=model, name=self.name, **self._bounds)
        return made.for_agent(self.agent)


async def _early_end(execution_id: str) -> str | None:
    worker = current_step().worker
    return None if worker is None else early_end((await worker.transport.call(GetExecution(execution_id))).progress)


def _is_function(deps: Any) -> TypeGuard[Callable[[Context], Any]]:
    return callable(deps) and not isinstance(deps, type)


def durable(agent: AbstractAgent[DepsT, OutT], **options: Unpack[DurableOptions[DepsT]]) -> DurableAgent[DepsT, OutT]:
    """Make an agent a workflow that records its model requests, tool calls and MCP calls as steps.

    Each toolset needs an `id`. `DurableOptions` lists the options. Raises `ValueError` if the agent has no name, JSON
    cannot tell the output types apart, or step options are invalid. Raises `pydantic_ai.exceptions.UserError` for an
    agent that cannot be durable.

    >>> support = durable(Agent(MODEL, name="support", output_type=Answer))         # doctest: +SKIP
    """
    made = DurableAgent(agent, **options)
    declare(made)
    return made
