from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Literal

from pydantic_ai import durable_exec
from pydantic_ai.agent import AbstractAgent, EventStreamHandler
from pydantic_ai.capabilities import AbstractCapability, WrapToolExecuteHandler
from pydantic_ai.exceptions import ModelRetry, ToolFailed, ToolFailedError, ToolRetryError, UserError
from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ModelResponse,
    ToolCallPart,
    ToolReturn,
    ToolReturnPart,
)
from pydantic_ai.models import Model, ModelRequestContext
from pydantic_ai.tools import (
    AgentDepsT,
    DeferredToolRequests,
    DeferredToolResults,
    RunContext,
    ToolDefinition,
    ToolDenied,
)
from pydantic_ai.toolsets import AbstractToolset, FunctionToolset

from perdure.agents.approvals import ApprovalQuestions
from perdure.agents.budgets import USED_UP, is_last
from perdure.agents.code_calls import HookedCode, marked_as_code
from perdure.agents.outcomes import refused
from perdure.agents.runs import current_run
from perdure.agents.steps import CODEC, TOOL_KEY, StepBackend, StepOptions, is_code, not_recordable
from perdure.agents.stops import StopCondition, answer_now, withheld, without_calls
from perdure.agents.streaming import Unstreamed, can_stream, emit_event, emit_events, emitting
from perdure.agents.watchdog import watched
from perdure.wire.agents.agent_steps import ASKED_AGAIN


class PerdureDurability(durable_exec.BaseDurabilityCapability[AgentDepsT]):
    """Runs an agent's operations as steps. Does nothing outside an execution."""

    engine_spec = durable_exec.DurabilityEngineSpec(
        engine_name="Perdure",
        durable_unit_noun="step",
        durable_container_noun="workflow",
        codec=CODEC,
        serialization_failure=not_recordable,
        # Connections are opened in steps: the agent's code runs without input/output.
        toolset_lifecycles={"function": "enter-never", "mcp": "enter-never", "dynamic": "enter-never"},
        tool_config_key=TOOL_KEY,
    )

    def __init__(
        self,
        *,
        models: Mapping[str, Model] | None = None,
        model: Model | str | None = None,
        stream: bool | None = None,
        event_stream_handler: EventStreamHandler[AgentDepsT] | None = None,
        name: str | None = None,
        model_step: StepOptions | None = None,
        tool_step: StepOptions | None = None,
        stop: Sequence[StopCondition] = (),
        watchdog: int | None = None,
        answer_timeout: float | None = None,
    ) -> None:
        self._streams = (not isinstance(model, Model) or can_stream(model)) if stream is None else stream
        self._must_stream = stream is True
        super().__init__(models=models, event_stream_handler=emit_events if self._streams else None, name=name)
        self._live_handler = emit_events if event_stream_handler is None else emitting(event_stream_handler)
        if watchdog is not None and watchdog < 2:
            raise ValueError(f"watchdog must be at least 2; got {watchdog!r}.")
        self._backend = StepBackend(
            model_step or {}, tool_step or {}, self._unwrap_tool_result, tells_answers=not self._streams
        )
        self._stop = tuple(stop)
        self._watchdog = watchdog
        self._questions = ApprovalQuestions(answer_timeout)

    def for_agent(self, agent: AbstractAgent[AgentDepsT, Any]) -> AbstractCapability[AgentDepsT]:
        return self if self.agent is agent else super().for_agent(agent)

    def _model_stream_event_handler(self) -> EventStreamHandler[AgentDepsT]:
        return self._live_handler

    @property
    def in_durable_context(self) -> bool:
        return current_run() is not None

    def get_durable_operation_backend(self) -> StepBackend:
        return self._backend

    def get_default_run_id(self) -> str | None:
        run = current_run()
        return None if run is None else run.id

    def get_default_conversation_id(self, run_id: str) -> str | None:
        run = current_run()
        return None if run is None else run.ctx.session_id or durable_exec.conversation_id_from_run_id(run_id)

    def get_wrapper_model(self, model: Model) -> Model | None:
        return Unstreamed(model) if self._streams and not self._must_stream and not can_stream(model) else None

    def get_wrapper_toolset(self, toolset: AbstractToolset[AgentDepsT]) -> AbstractToolset[AgentDepsT] | None:
        run = current_run()
        if run is None:
            return super().get_wrapper_toolset(toolset)
        leaves: dict[str, AbstractToolset[AgentDepsT]] = {}
        wrapped = toolset.visit_and_replace(lambda leaf: self._as_steps(leaf, leaves))
        marked = wrapped.visit_and_replace(marked_as_code)
        return HookedCode(marked) if run.own_hooks else marked

    def _as_steps(
        self, leaf: AbstractToolset[AgentDepsT], leaves: dict[str, AbstractToolset[AgentDepsT]]
    ) -> AbstractToolset[AgentDepsT]:
        """Binds toolsets that capabilities make for each run. Steps need no registration."""
        leaf_id = leaf._explicit_id  # as in the library: a derived id would change with its URL
        registered = None if leaf_id is None else self._toolsets_by_id.get(leaf_id)
        wrapped = registered if registered is not None and registered.wrapped is leaf else self._wrap_leaf_toolset(leaf)
        if wrapped is None:
            return leaf
        if leaf_id is None:
            if isinstance(leaf, FunctionToolset):
                return wrapped  # the keys of its calls do not contain the id
            raise UserError(f"{leaf.label} needs an `id`: it is part of the keys of its steps.")
        if leaves.setdefault(leaf_id, leaf) is not leaf:
            raise UserError(f"Two toolsets of a run have the id {leaf_id!r}: it is part of the keys of their steps.")
        return wrapped

    # One capability for all, because each costs time at its hooks. It runs last: a program can answer before people
    # are asked.

    async def prepare_tools(self, ctx: RunContext[AgentDepsT], tool_defs: list[ToolDefinition]) -> list[ToolDefinition]:
        run = current_run()
        return tool_defs if run is None else withheld(run, self._stop, ctx, tool_defs)

    async def before_model_request(
        self, ctx: RunContext[AgentDepsT], request_context: ModelRequestContext
    ) -> ModelRequestContext:
        request_context = await super().before_model_request(ctx, request_context)
        run = current_run()
        if run is not None:
            for why in refused(request_context.messages, request_context.model_request_parameters):
                run.ctx.log("%s%s", ASKED_AGAIN, why)
            if run.finishing is not None:
                answer_now(run, request_context)
        return request_context

    async def after_model_request(
        self, ctx: RunContext[AgentDepsT], *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        run = current_run()
        if run is not None and is_last(response):
            run.finish("budget", USED_UP)
        if run is None or run.finishing is None:
            return response
        return without_calls(run, request_context, response)

    async def wrap_tool_execute(
        self,
        ctx: RunContext[AgentDepsT],
        *,
        call: ToolCallPart,
        tool_def: ToolDefinition,
        args: dict[str, Any],
        handler: WrapToolExecuteHandler,
    ) -> Any:
        self._emit_call(call)
        try:
            result = await self._run_tool(call, tool_def, handler(args))
        except (ModelRetry, ToolRetryError, ToolFailed, ToolFailedError) as error:
            self._emit_result(call, error)
            await self._watched(ctx, call.tool_name, args, str(error))  # the model may repeat the call
            raise
        self._emit_result(call, result)
        await self._watched(ctx, call.tool_name, args, result)
        return result

    async def handle_deferred_tool_calls(
        self, ctx: RunContext[AgentDepsT], *, requests: DeferredToolRequests
    ) -> DeferredToolResults | None:
        run = current_run()
        if run is None:
            return None
        for one in (*requests.approvals, *requests.calls):
            self._emit_call(one)
        results = await self._questions.answered(run, ctx, requests)
        for one in requests.calls:
            self._emit_result(one, results.calls[one.tool_call_id])
        for one in requests.approvals:
            decided = results.approvals[one.tool_call_id]
            if isinstance(decided, ToolDenied):
                self._emit_result(one, decided)
                await self._watched(ctx, one.tool_name, one.args_as_dict(), decided.message)
        return results

    async def _run_tool(self, call: ToolCallPart, tool_def: ToolDefinition, result: Awaitable[Any]) -> Any:
        run = current_run()
        if run is None or not is_code(tool_def):
            return await result
        try:
            with run.apart(f"code:{call.tool_name}:{call.tool_call_id}"):
                return await result
        finally:
            durable_exec.record_durable_unit(executed=not run.ctx.machine.replaying)  # for telemetry

    async def _watched(self, ctx: RunContext[AgentDepsT], tool: str, args: dict[str, Any], outcome: Any) -> None:
        run = current_run()
        if run is not None and self._watchdog is not None:
            await watched(run, self._watchdog, ctx, tool, args, result=outcome)

    def _emit_call(self, call: ToolCallPart) -> None:
        """Emit a call once, although the call may wait for people before running."""
        run = current_run()
        if run is not None and not self._streams and call.tool_call_id not in run.emitted_calls:
            run.emitted_calls.add(call.tool_call_id)
            emit_event(FunctionToolCallEvent(call))

    def _emit_result(self, call: ToolCallPart, result: Any) -> None:
        run = current_run()
        if run is not None and not self._streams:
            run.emitted_calls.discard(call.tool_call_id)  # a provider may use the id again
            emit_event(FunctionToolResultEvent(_returned(call, result)))


def _returned(call: ToolCallPart, result: Any) -> ToolReturnPart:
    content: Any = result
    outcome: Literal["success", "failed", "denied", "retried"] = "success"
    if isinstance(result, ToolReturn):
        content = result.return_value
    elif isinstance(result, ToolDenied):
        content, outcome = result.message, "denied"
    elif isinstance(result, ModelRetry | ToolRetryError):
        content, outcome = str(result), "retried"
    elif isinstance(result, ToolFailed | ToolFailedError):
        content, outcome = str(result), "failed"
    return ToolReturnPart(call.tool_name, content, call.tool_call_id, outcome=outcome)
