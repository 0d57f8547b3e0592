"""The operations of an agent as steps: Pydantic AI's durable interface over an execution.

The result of an operation is recorded as JSON before the agent's code reads it, so a replay reads the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from copy import copy
from dataclasses import replace
from typing import Any, Final, Generic, Literal, TypedDict, TypeVar

from msgspec import Raw, Struct
from msgspec.json import decode, encode
from pydantic_ai import durable_exec
from pydantic_ai.agent import Agent
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import ModelResponse
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import ToolsetTool
from pydantic_ai.usage import RunUsage

from perdure.agents.budgets import ended_by, last_words, mark_last
from perdure.agents.calls import Call, hooked
from perdure.agents.failures import is_out_of_reach
from perdure.agents.inputs import type_adapter
from perdure.agents.limits import admitted_request, failed_request, is_tried_again, patient
from perdure.agents.model_errors import recorded_failure
from perdure.agents.names import step_name
from perdure.agents.outcomes import to_signal
from perdure.agents.runs import AgentRun, current_run
from perdure.agents.streaming import emit_answer
from perdure.sdk.base.errors import BudgetExceeded, Fatal, StepFailed
from perdure.sdk.workflows.steps import (
    ONCE,
    Retry,
    StepCall,
    StepSettings,
    as_policy,
    current_context,
    running_step,
    step_result,
)
from perdure.wire.base.records import Kind
from perdure.wire.base.retry import RetryPolicy

ParamsT = TypeVar("ParamsT")
WireT = TypeVar("WireT")
ResultT = TypeVar("ResultT")

TOOL_KEY: Final = "perdure"
"""The key of a tool's metadata: StepOptions, or False for workflow code."""
MODEL_RETRY: Final = RetryPolicy(max_attempts=4, initial_seconds=1.0, max_seconds=60.0)
"""Applies also to listing tools and instructions."""
_CALLS: Final = (durable_exec.ToolsetCallToolParams, durable_exec.DynamicToolsetCallToolParams)
_LOOKS: Final = (durable_exec.ToolsetGetToolsId, durable_exec.ToolsetGetInstructionsId)


class StepOptions(TypedDict, total=False):
    """Options of a model's or tool's steps: `retry` is a policy or a number of tries, `timeout` seconds per try."""

    retry: Retry | None
    timeout: float | None


_PLAIN: Final = StepOptions()


class JsonCodec(durable_exec.DurabilityCodec):
    def dump(self, tp: Any, value: Any) -> Raw:
        return Raw(type_adapter(tp).dump_json(value))

    def load(self, tp: Any, payload: Any) -> Any:
        return type_adapter(tp).validate_json(bytes(payload))


CODEC: Final = JsonCodec()


def not_recordable(error: Exception) -> Fatal:
    return Fatal(f"the result of the call cannot be recorded as JSON: {error}")


def is_code(tool_def: ToolDefinition) -> bool:
    return (tool_def.metadata or {}).get(TOOL_KEY) is False


class StepBackend(durable_exec.DurableOperationBackend[StepOptions]):
    def __init__(
        self,
        model: StepOptions,
        tool: StepOptions,
        unwrap: Callable[[durable_exec.CallToolResult], Any],
        *,
        tells_answers: bool = False,
    ) -> None:
        """`unwrap` returns or raises a tool's recorded result. With `tells_answers`, steps of models that do not stream
        emit whole answers."""
        for name, given in (("model_step", model), ("tool_step", tool)):
            if not given.keys() <= StepOptions.__annotations__.keys():
                raise ValueError(f"{name} may have only {sorted(StepOptions.__annotations__)}; got {given!r}.")
            as_policy(given.get("retry"))
        self._by_role: dict[str, StepOptions] = {"model": model, "tool": tool}
        self.unwrap = unwrap
        self.tells_answers = tells_answers

    def bind(
        self, operation: durable_exec.DurableOperation[ParamsT, WireT, ResultT]
    ) -> durable_exec.BoundDurableOperation[ParamsT, WireT, ResultT]:
        return _Bound(operation, self._options(operation), self)

    def _options(self, operation: durable_exec.DurableOperation[Any, Any, Any]) -> StepOptions:
        return self._by_role.get(operation.config_role, _PLAIN)

    def config_for_tool(
        self, operation: durable_exec.DurableOperation[ParamsT, WireT, ResultT], *, tool: object | None, tool_name: str
    ) -> StepOptions | Literal[False]:
        metadata = tool.tool_def.metadata if isinstance(tool, ToolsetTool) else None
        chosen = (metadata or {}).get(TOOL_KEY)
        if chosen is False:
            return False
        options = self._options(operation)
        if chosen is None:
            return options
        if not isinstance(chosen, dict) or not chosen.keys() <= StepOptions.__annotations__.keys():
            raise UserError(
                f"The metadata {TOOL_KEY!r} of tool {tool_name!r} must be False or have only "
                f"{sorted(StepOptions.__annotations__)}; got {chosen!r}."
            )
        return StepOptions(**{**options, **chosen})

    def registrations(self) -> Sequence[Callable[..., object]]:
        return ()


class _Bound(durable_exec.BoundDurableOperation[ParamsT, WireT, ResultT], Generic[ParamsT, WireT, ResultT]):
    def __init__(
        self,
        operation: durable_exec.DurableOperation[ParamsT, WireT, ResultT],
        options: StepOptions,
        backend: StepBackend,
    ) -> None:
        self._operation = operation
        self._options = options
        self._backend = backend

    @property
    def operation(self) -> durable_exec.DurableOperation[ParamsT, WireT, ResultT]:
        return self._operation

    async def __call__(self, params: ParamsT, *, config: object | None = None) -> ResultT:
        operation = self._operation
        run = current_run()
        if run is None or isinstance(operation.operation_id, durable_exec.EventStreamHandlerId):
            # Events follow from recorded answers, so a replay makes them again without a step.
            return await operation.handler(params)
        options: Any = self._options if config is None else config
        if operation.config_role != "model":
            return operation.result_codec.load(_taken_apart(await self._step(params, run, options), params))
        try:
            recorded = await admitted_request(run, lambda: self._step(params, run, options))
        except StepFailed as failure:
            error, _ = recorded_failure(failure, getattr(operation.operation_id, "model_name", ""))
            raise error from error.__cause__
        except BudgetExceeded as exceeded:
            ending = ended_by(exceeded, params)
            if ending is None:
                raise
            run.end_over(exceeded)
            return ending  # type: ignore[return-value]  # only a request for an answer is ended by one
        return operation.result_codec.load(recorded)

    async def _step(self, params: ParamsT, run: AgentRun, options: Any) -> Raw:
        operation_id = self._operation.operation_id
        name, key = step_name(operation_id, getattr(params, "name", ""), _tool_call_id(params))
        is_model = self._operation.config_role == "model"
        chosen = as_policy(options.get("retry"))
        looks = chosen is None and isinstance(operation_id, _LOOKS)
        settings = StepSettings(
            retry=chosen or (MODEL_RETRY if is_model or looks else ONCE),
            timeout=options.get("timeout"),
            retry_if=is_tried_again if is_model else is_out_of_reach if looks else None,
            quiet=isinstance(operation_id, _LOOKS),
        )
        body = _Body(self._operation, params, run, self._backend, chosen)
        machine = run.ctx.machine
        asked = machine.new_call(
            Kind.STEP,
            name,
            None,  # the journal determines the request, and hashing a long history each time is slow
            StepCall(body.run, settings=settings, result_type=Raw),
            key=run.keys.again(key),
        )
        try:
            recorded: Raw = await step_result(machine, asked, Raw)
        except StepFailed:
            durable_exec.record_durable_unit(executed=body.has_run)
            raise
        durable_exec.record_durable_unit(executed=body.has_run)
        return recorded


class _Body(Generic[ParamsT]):
    def __init__(
        self,
        operation: durable_exec.DurableOperation[ParamsT, Any, Any],
        params: ParamsT,
        run: AgentRun,
        backend: StepBackend,
        retry: RetryPolicy | None,
    ) -> None:
        self._backend = backend
        self._operation = operation
        self._params = params
        self._run = run
        self._retry = retry
        self._variables = copy_context()
        self.has_run = False

    async def run(self) -> Raw:
        self.has_run = True
        # Variables that hooks set, such as the open span, also hold in steps.
        for variable, value in self._variables.items():
            if variable not in _OF_CODE:
                variable.set(value)
        try:
            with durable_exec.durable_unit_scope(), _worker_scopes():
                return await self._called()
        except Exception as error:
            if self._operation.config_role != "model":
                raise
            run = self._run
            raise failed_request(error, run, self._retry, hooks_first=run.has_error_hooks)  # noqa: B904  # has its cause

    async def _called(self) -> Raw:
        operation, params, run = self._operation, self._params, self._run
        before: RunUsage | None = None
        if isinstance(params, durable_exec.ModelRequestParams):
            params = replace(params, model_settings=patient(params))
        if isinstance(params, _CALLS):
            # A tool counts usage (of an inner agent) on a copy. The difference is recorded, and a replay adds it.
            before = copy(params.ctx.usage)
            own = copy(params.ctx)
            own.usage = copy(before)
            params = replace(params, ctx=own)
        call = _to_call(operation, params, run)
        if call is None:
            payload = operation.result_codec.dump(await operation.handler(params))
        elif call.kind != "model":
            payload = await self._tool(params, call)
        else:
            asked = params

            async def made() -> Any:
                nonlocal asked
                asked = last_words(params)  # the request is reserved by now
                return await operation.handler(asked)

            value = await hooked(run.hooks, call, made)
            if asked is not params and isinstance(value, ModelResponse):
                mark_last(value)
            if self._backend.tells_answers and isinstance(value, ModelResponse):
                emit_answer(value)
            payload = operation.result_codec.dump(value)
        assert isinstance(payload, Raw)
        if before is not None:
            assert isinstance(params, _CALLS)
            if params.ctx.usage != before:
                return Raw(encode(_WithUsage(CODEC.dump(RunUsage, params.ctx.usage - before), payload)))
        return payload

    async def _tool(self, params: ParamsT, call: Call) -> Any:
        """A hook's signal is recorded as if the tool had raised it."""
        operation = self._operation
        record: Any = None
        said: Exception | None = None

        async def made() -> Any:
            nonlocal record, said
            record = await operation.handler(params)
            try:
                return self._backend.unwrap(record)
            except Exception as error:  # the tool's signal: hooks see it
                said = error
                raise

        try:
            await hooked(self._run.hooks, call, made)
        except Exception as error:
            if error is not said:
                if (signal := to_signal(error)) is None:
                    raise
                return Raw(encode(signal))
        return operation.result_codec.dump(record)


_OF_CODE: Final = frozenset({running_step, current_context})
"""Variables that tell steps from workflow code, so a step keeps its own values."""


@contextmanager
def _worker_scopes() -> Iterator[None]:
    """Steps may use threads, but not wait for outside events."""
    nothing: Any = None
    with Agent.using_thread_executor(nothing), durable_exec.external_event_scope(nothing):
        yield


class _WithUsage(Struct, frozen=True):
    usage: Raw
    value: Raw


_HAS_USAGE: Final = b'{"usage":'
"""A record without usage starts with its kind or result."""


def _taken_apart(recorded: Raw, params: object) -> Raw:
    """Adds the tool's usage to the run's."""
    if not isinstance(params, _CALLS) or not bytes(recorded).startswith(_HAS_USAGE):
        return recorded
    both = decode(recorded, type=_WithUsage)
    params.ctx.usage.incr(CODEC.load(RunUsage, both.usage))
    return both.value


def _tool_call_id(params: object) -> str | None:
    context = getattr(params, "ctx", None)
    return None if context is None else context.tool_call_id


def _to_call(operation: durable_exec.DurableOperation[Any, Any, Any], params: Any, run: AgentRun) -> Call | None:
    match operation.operation_id:
        case durable_exec.ModelRequestId(model_name=name):
            assert isinstance(params, durable_exec.ModelRequestParams)
            context = params.run_context
            return Call("model", name, run.ctx.execution_id, run.agent_name, context, request=params)
        case durable_exec.ModelCompactMessagesId(model_name=name):
            return Call("model", name, run.ctx.execution_id, run.agent_name, params.run_context)
        case durable_exec.ToolsetCallToolId(toolset_kind=kind):
            return Call(
                "mcp" if kind == "mcp" else "tool",
                params.name,
                run.ctx.execution_id,
                run.agent_name,
                params.ctx,
                tool_call_id=params.ctx.tool_call_id,
                arguments=params.tool_args,
            )
    return None
