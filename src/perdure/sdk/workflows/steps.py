from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import types
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, Protocol, TypeAlias, TypedDict, TypeVar, overload

from msgspec import Struct

from perdure.sdk.base.checks import checked_name, checked_options, checked_timeout
from perdure.sdk.base.errors import Evicted, Fatal, Misplaced, RecordedError, StepFailed
from perdure.sdk.payloads.errors import error_from_json
from perdure.sdk.payloads.fingerprints import (
    CAPTURED,
    captures_values,
    fingerprint_of_call,
    fingerprint_of_captured,
    identify,
)
from perdure.sdk.payloads.hints import Unannotated, read_hints
from perdure.sdk.payloads.values import decode
from perdure.sdk.replay.calls import STEP, DurableCall
from perdure.sdk.replay.eviction import leaving
from perdure.sdk.workflows.streams import to_emitted
from perdure.wire.base.retry import RetryPolicy

if TYPE_CHECKING:
    from perdure.sdk.replay.machine import Machine
    from perdure.sdk.transports.transport import Transport
    from perdure.sdk.workflows.execution_state import ExecutionState

F = TypeVar("F", bound=Callable[..., Coroutine[Any, Any, Any]])
P = ParamSpec("P")
R = TypeVar("R")

Retry: TypeAlias = RetryPolicy | int
"""A number counts tries."""
Errors: TypeAlias = (
    type[BaseException] | tuple[type[BaseException], ...] | types.UnionType | Callable[[BaseException], bool]
)


OnFailure: TypeAlias = Literal["fail", "hold"]
OnRetry: TypeAlias = Literal["keep", "redo"]


def checked_on_failure(on_failure: str | None) -> None:
    if on_failure not in (None, "fail", "hold"):
        raise ValueError(f"on_failure must be 'fail' or 'hold', got {on_failure!r}.")


def as_policy(retry: Retry | None) -> RetryPolicy | None:
    if isinstance(retry, int):
        return RetryPolicy(max_attempts=retry)
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise TypeError(f"retry wants a RetryPolicy or a number of tries, got {retry!r}.")
    return retry


ONCE: Final = RetryPolicy()


class StepSettings:
    __slots__ = ("fatal", "name", "on_failure", "on_retry", "quiet", "retry", "retry_if", "timeout_seconds")

    def __init__(
        self,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        retry_if: Errors | None = None,
        fatal: Errors | None = None,
        on_failure: OnFailure | None = None,
        on_retry: OnRetry | None = None,
        quiet: bool | None = None,
    ) -> None:
        checked_on_failure(on_failure)
        if on_retry not in (None, "keep", "redo"):
            raise ValueError(f"on_retry must be 'keep' or 'redo', got {on_retry!r}.")
        for word, errors in (("retry_if", retry_if), ("fatal", fatal)):
            if errors is None or isinstance(errors, tuple | types.UnionType):
                continue
            if not callable(errors):
                raise TypeError(f"{word} wants an exception class, a tuple of them or a predicate, got {errors!r}.")
            if is_async_callable(errors):
                raise TypeError(
                    f"{word} wants a sync predicate, and {_function_name(errors)!r} is async. Await inside the step, "
                    "and raise an error that the predicate recognizes."
                )
        self.name = checked_name(name, "the name of a step")
        self.retry = as_policy(retry) or ONCE
        self.timeout_seconds = checked_timeout(timeout)
        self.retry_if = retry_if
        self.fatal = fatal
        self.on_failure: OnFailure | None = on_failure
        self.on_retry: OnRetry | None = on_retry
        self.quiet = quiet

    def replaced(
        self,
        retry: Retry | None,
        timeout: float | timedelta | None,
        retry_if: Errors | None,
        fatal: Errors | None,
        *,
        on_failure: OnFailure | None,
        on_retry: OnRetry | None,
        quiet: bool | None,
    ) -> StepSettings:
        return StepSettings(
            name=self.name,
            retry=self.retry if retry is None else retry,
            timeout=self.timeout_seconds if timeout is None else timeout,
            retry_if=self.retry_if if retry_if is None else retry_if,
            fatal=self.fatal if fatal is None else fatal,
            on_failure=self.on_failure if on_failure is None else on_failure,
            on_retry=self.on_retry if on_retry is None else on_retry,
            quiet=self.quiet if quiet is None else quiet,
        )

    def is_final(self, error: BaseException) -> bool:
        """A group is retried if the group itself or all its errors may be."""
        return self._is_fatal(error) or not self._may_be_tried_again(error)

    def _is_fatal(self, error: BaseException) -> bool:
        if isinstance(error, Fatal) or (self.fatal is not None and _is_one_of(error, self.fatal)):
            return True
        return isinstance(error, BaseExceptionGroup) and any(map(self._is_fatal, error.exceptions))

    def _may_be_tried_again(self, error: BaseException) -> bool:
        if self.retry_if is None or _is_one_of(error, self.retry_if):
            return True
        return isinstance(error, BaseExceptionGroup) and all(map(self._may_be_tried_again, error.exceptions))


_DEFAULT: Final = StepSettings()


class StepPlan:
    __slots__ = ("captures", "fn", "is_async", "name", "of", "result_type", "settings")

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.of = fn
        self.settings: StepSettings = getattr(_within_partials(fn), "_perdure_options", _DEFAULT)
        self.fn = _undecorated(fn)
        self.name = self.settings.name or _function_name(self.fn)
        self.is_async = inspect.iscoroutinefunction(self.fn)
        self.captures = captures_values(self.fn)
        self.result_type: Any = _result_type(self.fn)


def step_plan(fn: Callable[..., Any]) -> StepPlan:
    plan = getattr(fn, "_perdure_plan", None)
    if isinstance(plan, StepPlan) and plan.of is fn:  # not the plan of a wrapped function or of a method's function
        return plan
    plan = StepPlan(fn)
    if isinstance(fn, types.FunctionType):
        fn._perdure_plan = plan  # type: ignore[attr-defined]  # any function takes attributes
    return plan


def _undecorated(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The original function if `fn` was made by `@step`."""
    if isinstance(fn, types.MethodType):
        body = _undecorated(fn.__func__)
        return fn if body is fn.__func__ else types.MethodType(body, fn.__self__)
    if isinstance(fn, functools.partial):
        body = _undecorated(fn.func)
        return fn if body is fn.func else functools.partial(body, *fn.args, **fn.keywords)
    made, body = getattr(fn, "_perdure_step", (None, fn))
    return body if made is fn else fn  # functools.wraps copies a step's attributes to its wrapper


def is_async_callable(fn: Callable[..., Any]) -> bool:
    inner = _within_partials(fn)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)


def _within_partials(fn: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def _result_type(fn: Callable[..., Any]) -> Any:
    inner = _within_partials(fn)
    if isinstance(inner, type):
        # A class's signature is that of `__init__`, which returns None.
        return Unannotated(fn) if inner.__module__ == "builtins" else inner
    if isinstance(inner, types.FunctionType) and not inner.__annotations__:
        return Unannotated(fn)
    return read_hints(fn, context=False).result


def _function_name(fn: Callable[..., Any]) -> str:
    fn = _within_partials(fn)
    return getattr(fn, "__name__", None) or type(fn).__name__


current_context: ContextVar[ExecutionState | None] = ContextVar("perdure_context", default=None)
"""None in steps and outside of workflows."""


class _StepDecorator(Protocol):
    @overload
    def __call__(self, fn: F, /) -> F: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Callable[P, Coroutine[object, None, R]]: ...


step_variables: ContextVar[contextvars.Context | None] = ContextVar("perdure_step_variables", default=None)
"""Set if a library's variables are not for steps."""


@overload
def step(fn: F, /) -> F: ...
@overload
def step(fn: Callable[P, R], /) -> Callable[P, Coroutine[object, None, R]]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: float | timedelta | None = None,
    retry_if: Errors | None = None,
    fatal: Errors | None = None,
    on_failure: OnFailure | None = None,
    on_retry: OnRetry | None = None,
    quiet: bool = False,
) -> _StepDecorator: ...
def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: float | timedelta | None = None,
    retry_if: Errors | None = None,
    fatal: Errors | None = None,
    on_failure: OnFailure | None = None,
    on_retry: OnRetry | None = None,
    quiet: bool = False,
    **unknown: Any,
) -> Any:
    """Make a function a step. Calls in workflow code are recorded; elsewhere, even in another step, the function just
    runs.

    A plain `def` runs in a thread and is awaited like an `async def`; `fetch.__wrapped__` is the function itself.
    `retry` is a RetryPolicy or a number of tries, `timeout` the seconds (or a timedelta) for each try. A thread cannot
    be stopped: after a time-out a plain `def` runs on, and may still write after the recorded failure. Errors in
    `fatal` end the step at once; with `retry_if` only matching errors are retried. Both are classes or a predicate.
    With `on_failure="hold"` the code does not see the failure of the last try: the execution is held until `Client.act`
    decides. `on_retry` says what a retry of the execution does with this step's outcome, if the code called the step
    after the retried failure: `"keep"` the outcome, or `"redo"` the step. Without `on_retry`, a retry asks.
    `quiet=True` marks a small step, which timelines fold with its neighbours. Raises `TypeError` for an object that
    cannot be a step, and for an unknown option.

        >>> @step(retry=3, timeout=10)
        ... async def fetch(url: str) -> bytes: ...
    """
    checked_options(unknown, StepSettings, "@step")
    options = StepSettings(
        name=name,
        retry=retry,
        timeout=timeout,
        retry_if=retry_if,
        fatal=fatal,
        on_failure=on_failure,
        on_retry=on_retry,
        quiet=quiet or None,
    )

    def decorate(fn: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
        _check_function(fn)
        run = fn if inspect.iscoroutinefunction(fn) else functools.partial(_in_thread, fn)

        @functools.wraps(fn)
        def call(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
            context = current_context.get()
            if context is None or not context.is_active:
                if leaving.get():
                    raise Evicted("A step cannot run while its execution leaves memory.")
                made: Coroutine[Any, Any, Any] = run(*args, **kwargs)
                return made
            return call_step(context.machine, step_plan(call), args, kwargs)

        call._perdure_options = options  # type: ignore[attr-defined]  # any function takes attributes
        call._perdure_step = (call, fn)  # type: ignore[attr-defined]  # as above
        return call

    return decorate if fn is None else decorate(fn)


def _check_function(fn: object) -> None:
    if isinstance(fn, staticmethod | classmethod):
        kind = type(fn).__name__
        raise TypeError(f"@step was put on the {kind} {_function_name(fn.__func__)!r}; write @{kind} above @step.")
    if not callable(fn) or isinstance(fn, type):
        raise TypeError(f"@step wants a function, got {fn!r}.")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(f"@step wants a function that returns its result, and {_function_name(fn)!r} yields.")


async def _in_thread(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    value = await asyncio.to_thread(fn, *args, **kwargs)
    return await value if inspect.isawaitable(value) else value


class StepCall(Struct, eq=False):
    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    settings: StepSettings = _DEFAULT
    is_async: bool = True
    """A sync `fn` may still return an awaitable."""
    result_type: Any = Any
    label: str | None = None

    def call(self) -> Any:
        return self.fn(*self.args, **self.kwargs) if self.kwargs else self.fn(*self.args)


def _is_one_of(error: BaseException, errors: Errors) -> bool:
    if isinstance(errors, type | tuple | types.UnionType):
        return isinstance(error, errors)
    answer: object = errors(error)
    if inspect.isawaitable(answer):  # it would count as true
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError(
            f"the predicate {_function_name(errors)!r} returned a `{type(answer).__name__}`; it must be sync"
        )
    return bool(answer)


class StepChoices(TypedDict, total=False):
    """Options of one call, which override the options of `@step`."""

    retry: Retry | None
    timeout: float | timedelta | None
    key: str | None
    retry_if: Errors | None
    fatal: Errors | None
    on_failure: OnFailure | None
    on_retry: OnRetry | None
    label: str | None
    quiet: bool | None


def not_a_function(given: object) -> TypeError:
    what = repr(given)
    if inspect.iscoroutine(given):
        given.close()
        what = "a coroutine, so the function was called already"
    return TypeError(f'ctx.step wants a function and its arguments, as `ctx.step("name", fn, 1, 2)`; got {what}.')


def _refuse_coroutines(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The first try would use a coroutine up."""
    for place, value in (*enumerate(args, 1), *kwargs.items()):
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError(f"Argument {place} of step {name!r} is a coroutine; did you forget `await`?")


def call_step(
    machine: Machine,
    plan: StepPlan,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    name: str | None = None,
    settings: StepSettings | None = None,
    key: str | None = None,
    label: str | None = None,
) -> Coroutine[object, None, Any]:
    name = name or plan.name
    settings = settings or plan.settings
    if key is None:
        print_ = identify(plan.fn, plan.captures, args, kwargs)
    else:  # the key tells it from other calls
        print_ = fingerprint_of_call(args, kwargs) if args or kwargs else fingerprint_of_captured(plan.fn)
    if print_ is None or print_[0] == CAPTURED:
        _refuse_coroutines(name, args, kwargs)
    call = machine.new_call(
        STEP,
        name,
        print_,
        StepCall(plan.fn, args, kwargs, settings, plan.is_async, result_type=plan.result_type, label=label),
        key=key,
    )
    return machine.made(call, step_result(machine, call, plan.result_type, is_keyed=key is not None), 3)


async def step_result(machine: Machine, call: DurableCall, result_type: Any, *, is_keyed: bool = True) -> Any:
    asked = machine.seen
    variables = step_variables.get()
    if variables is None:
        variables = copy_context()
    call.variables = variables
    if not is_keyed:
        machine.identify(call, variables)
    try:
        row = await machine.ask(call)
    except BaseException:
        machine.give_up(call)
        raise
    if row.ok:
        if (read := call.read) is not None and read[0] is row.value:
            call.read = None
            return read[1]
        return decode(bytes(row.value), result_type, where=f"the result of step {call.key!r}")
    error = error_from_json(bytes(row.value))
    machine.raised(row, asked)
    raise StepFailed(error.message, type=error.type, key=call.key, name=call.name, tries=row.tries) from RecordedError(
        error.message, type=error.type, detail=error.detail, details=error.details
    )


class StepWorker(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def epoch(self) -> str: ...
    @property
    def transport(self) -> Transport: ...


class StepInfo(Struct, frozen=True):
    """The running step."""

    execution_id: str
    key: str
    name: str
    tries: int
    """Counted from 1."""
    context: ExecutionState | None = None
    worker: StepWorker | None = None
    keys_id: str | None = None
    """The execution whose idempotency keys this execution continues, if it is a fork."""

    @property
    def idempotency_key(self) -> str:
        """A key for services that drop repeats: the same in every try, attempt, fork and retry."""
        return f"{self.keys_id or self.execution_id}:{self.key}"

    def emit(self, kind: str, data: object = None) -> None:
        """See `ctx.emit`."""
        if self.context is not None:
            self.context.outbox.add(to_emitted(kind, data, self.key, self.tries))


running_step: ContextVar[StepInfo | None] = ContextVar("perdure_step", default=None)


def current_step() -> StepInfo:
    """The step whose body is running. Raises `Misplaced` elsewhere.

    @step
    async def pay(order_id: int) -> None:
        await bank.pay(order_id, idempotency_key=current_step().idempotency_key)
    """
    info = running_step.get()
    if info is None:
        raise Misplaced("current_step() works inside a step's body only.")
    return info
