import contextlib
import functools
import inspect
import types
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, Protocol, TypeAlias, TypeVar, overload

from msgspec import Raw

from perdure.sdk.base.checks import checked_options
from perdure.sdk.payloads.hints import Hints, Unannotated, read_hints
from perdure.sdk.payloads.values import decode, encode
from perdure.sdk.workflows.declared_schedules import NO_INPUT, Schedule
from perdure.sdk.workflows.descriptions import describe
from perdure.sdk.workflows.execution_state import ExecutionState
from perdure.sdk.workflows.steps import ONCE, OnFailure, Retry, as_policy, checked_on_failure, current_context
from perdure.sdk.workflows.triggers import EventTrigger
from perdure.wire.base.errors import BadValue
from perdure.wire.clock.schedules import ScheduleSpec
from perdure.wire.clock.triggers import TriggerSpec, is_made_by_server
from perdure.wire.runs.requests import QueueSpec, WorkflowSpec
from perdure.wire.runs.search_terms import check_fields
from perdure.wire.runs.workflows import WorkflowDescription

if TYPE_CHECKING:
    from perdure.sdk.workflows.context import Context

I = TypeVar("I")  # noqa: E741  # Input and Result: the two types that follow a workflow everywhere
R = TypeVar("R")
StartT = TypeVar("StartT", Schedule, EventTrigger)
I_contra = TypeVar("I_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

Schedulings: TypeAlias = Schedule | str | Sequence[Schedule | str]
"""A text is a cron expression in UTC."""
Triggerings: TypeAlias = EventTrigger | str | Sequence[EventTrigger | str]
"""A text is a topic. Each of its events starts the workflow."""


def _listed(given: Any, kind: type[StartT], key: str, twice: str) -> list[StartT]:
    """Raises ValueError for two equal keys."""
    several = [] if given is None else [given] if isinstance(given, kind | str) else given
    found = [kind(one) if isinstance(one, str) else one for one in several]
    keys = [getattr(one, key) for one in found]
    for name in keys:
        if keys.count(name) > 1:
            raise ValueError(twice.format(name))
    return found


class Queue:
    """A queue, with limits on the executions running at once.

    `concurrency_limit` is for each value of `concurrency_key`, `total_limit` for all together; None sets no limit. The
    last registered declaration counts.

        >>> Queue("mail", concurrency_limit=5, total_limit=50)
        Queue('mail', concurrency_limit=5, total_limit=50)
    """

    def __init__(self, name: str, *, concurrency_limit: int | None = None, total_limit: int | None = None) -> None:
        for word, limit in (("concurrency_limit", concurrency_limit), ("total_limit", total_limit)):
            if limit is not None and limit < 1:
                raise ValueError(f"{word} of queue {name!r} must be at least 1, got {limit!r}.")
        self.name = name
        self.concurrency_limit = concurrency_limit
        self.total_limit = total_limit

    def spec(self) -> QueueSpec:
        return QueueSpec(self.name, self.concurrency_limit, self.total_limit)

    def __repr__(self) -> str:
        return f"Queue({self.name!r}, concurrency_limit={self.concurrency_limit}, total_limit={self.total_limit})"


def _check_function(fn: Callable[..., Any]) -> None:
    if isinstance(fn, staticmethod | classmethod):
        raise _is_method(fn.__func__)
    if not inspect.iscoroutinefunction(fn):
        raise TypeError(f"A workflow is an `async def f(ctx, input)`; {fn!r} is not async.")
    signature = inspect.signature(fn)
    if next(iter(signature.parameters), None) in ("self", "cls"):
        raise _is_method(fn)
    for given in ((None,), (None, None)):
        with contextlib.suppress(TypeError):
            signature.bind(*given)
            return
    what = f"{getattr(fn, '__name__', repr(fn))}{signature}"
    raise TypeError(
        f"A workflow is an `async def f(ctx, input)` or `f(ctx)`; {what} cannot be called like that. Pass several "
        "values as one input: a dataclass or a dict."
    )


def _is_method(fn: Callable[..., Any]) -> TypeError:
    return TypeError(
        f"{fn.__qualname__}() is a method, and a worker has no object to call it on. Make the workflow a function of "
        "its module. Pass its data as the input, or create it in its steps."
    )


class Workflow(Generic[I_contra, R_co]):
    """An `async def f(ctx, input)` and its options, made by `@workflow`.

    A call runs the function inside the calling workflow; `ctx.run_child` starts a separate execution.
    """

    def __init__(
        self,
        fn: Callable[..., Coroutine[Any, Any, R_co]],
        *,
        name: str | None = None,
        retry: Retry | None = None,
        queue: Queue | str | None = None,
        run_timeout_seconds: int | None = None,
        on_cancel: Literal["cancel", "wake"] = "cancel",
        strict: bool = False,
        output_schema_name: str | None = None,
        searchable: Sequence[str] = (),
        schedule: Schedulings | None = None,
        trigger_on: Triggerings | None = None,
        on_failure: OnFailure = "fail",
    ) -> None:
        _check_function(fn)
        checked_on_failure(on_failure)
        if on_cancel not in ("cancel", "wake"):
            raise ValueError(f"on_cancel must be 'cancel' or 'wake', got {on_cancel!r}.")
        if run_timeout_seconds is not None and run_timeout_seconds < 1:
            raise ValueError(f"run_timeout_seconds must be at least 1, got {run_timeout_seconds!r}.")
        self.fn: Callable[..., Coroutine[Any, Any, R_co]] = fn
        self.name = name or fn.__name__
        self.retry = as_policy(retry) or ONCE
        self.queue = Queue(queue) if isinstance(queue, str) else queue
        self._has_declared_queue = isinstance(queue, Queue)
        self.run_timeout_seconds = run_timeout_seconds
        self.on_cancel: Literal["cancel", "wake"] = on_cancel
        self.strict = strict
        self.on_failure: OnFailure = on_failure
        self._output_schema_name = output_schema_name
        self.searchable = [searchable] if isinstance(searchable, str) else list(searchable)
        try:
            check_fields(self.searchable, "searchable")
        except BadValue as error:
            raise ValueError(error.message) from None
        self.schedules = _listed(
            schedule,
            Schedule,
            "key",
            "Two schedules of one workflow are called {!r}; give each of them a key= of its own.",
        )
        self.triggers = _listed(
            trigger_on,
            EventTrigger,
            "topic",
            "Two event triggers of one workflow have the topic {!r}; remove one of them.",
        )
        functools.update_wrapper(self, fn)

    @functools.cached_property
    def _hints(self) -> Hints:
        try:
            return read_hints(self.fn)
        except TypeError as error:
            raise TypeError(
                f"Workflow {self.name!r} of module {self.fn.__module__}: {error} To serve the other workflows, "
                "remove @workflow from its function, or give the worker a Registry without it."
            ) from None

    def check_hints(self) -> None:
        _ = self._hints

    @functools.cached_property
    def input_type(self) -> Any:
        return self._hints.input

    @functools.cached_property
    def result_type(self) -> Any:
        return self._hints.result

    @property
    def takes_input(self) -> bool:
        return self._hints.takes_input

    @property
    def output_schema_name(self) -> str | None:
        if self._output_schema_name is not None:
            return self._output_schema_name
        hint = self.result_type
        if hint is Any or isinstance(hint, Unannotated):
            return None
        return hint.__name__ if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) else str(hint)

    def read_input(self, payload: bytes) -> Any:
        """`NO_INPUT` for null if the function has a default. Raises `BadValue`."""
        has_none = payload == b"null" and self._hints.has_default
        return NO_INPUT if has_none else decode(payload, self.input_type, where="input")

    def begin(self, ctx: "Context", input: Any) -> Coroutine[Any, Any, R_co]:
        """Directly called steps find `ctx`."""
        current_context.set(ctx)
        if self.takes_input:
            return self.fn(ctx) if input is NO_INPUT else self.fn(ctx, input)
        # A started execution goes on: the release before dropped its input.
        if not (_is_empty(input) or ctx.machine.replaying or is_made_by_server(input)):
            return self._refuse_input(input)
        return self.fn(ctx)

    async def _refuse_input(self, input: Any) -> NoReturn:
        raise self._takes_none(input, "input")

    def _takes_none(self, input: object, where: str) -> BadValue:
        return BadValue(
            f"{where}: workflow {self.name!r} takes no input, got a `{type(input).__name__}`; start it without one, or "
            "give its function a second parameter"
        )

    def starting(self, outside: Mapping[ContextVar[Any], Any] | None) -> None:
        """Raises if a client must not start the workflow. `outside` holds the context variables around the start of the
        client's own worker, if any."""

    def unpriced(self) -> list[str]:
        """Models with unknown prices, which a budget in money refuses."""
        return []

    @functools.cached_property
    def _description(self) -> WorkflowDescription | None:
        try:
            return describe(self.fn, self._hints)
        except TypeError:  # a hint that cannot be resolved; `check_hints` tells it where it matters
            return None

    @functools.cached_property
    def input_check(self) -> str | None:
        return None if self._description is None else self._description.check_name

    def spec(self) -> WorkflowSpec:
        return WorkflowSpec(
            id=self.name,
            description=self._description,
            queue_name=None if self.queue is None else self.queue.name,
            output_schema_name=self.output_schema_name,
            run_timeout_seconds=self.run_timeout_seconds,
            wake_on_cancel=self.on_cancel == "wake",
            searchable=self.searchable,
        )

    @overload
    def __call__(self: "Workflow[None, R]", ctx: "Context", /) -> Coroutine[object, None, R]: ...
    @overload
    def __call__(self: "Workflow[I, R]", ctx: "Context", input: I, /) -> Coroutine[object, None, R]: ...
    def __call__(self, ctx: "Context", *args: Any) -> Coroutine[object, None, Any]:
        if isinstance(ctx, ExecutionState):
            return ctx.machine.begins(f"workflow {self.name!r}", functools.partial(self._call, ctx, *args))
        if current_context.get() is not None:
            raise self._miscalled(ctx)
        return self._call(ctx, *args)  # a test's stand-in for the context

    def _call(self, ctx: object, *args: Any) -> Coroutine[Any, Any, R_co]:
        try:
            return self.fn(ctx, *args)
        except TypeError:  # none of its lines has run
            raise self._miscalled(ctx, *args) from None

    def _miscalled(self, *args: object) -> TypeError:
        word, given = self.fn.__name__, ", ".join(type(one).__name__ for one in args)
        rest = ", input" if len(inspect.signature(self.fn).parameters) > 1 else ""
        return TypeError(
            f"Workflow {self.name!r} was called with ({given}). Write `await ctx.run_child({word}{rest})` to run it as "
            f"an execution of its own, or `await {word}(ctx{rest})` to run it inside this one."
        )

    def __repr__(self) -> str:
        return f"<Workflow {self.name!r}>"


def named(workflow: "Workflow[Any, Any] | str") -> tuple[str, Any]:
    if isinstance(workflow, str):
        return workflow, Any
    if not isinstance(workflow, Workflow):
        name = getattr(workflow, "__name__", None) or repr(workflow)
        raise TypeError(f"{name} is not a workflow; decorate its function with @workflow, or give a workflow's name.")
    return workflow.name, workflow.result_type


def encode_input(workflow: "Workflow[Any, Any] | str", input: object, *, where: str = "input") -> bytes:
    """Raises `BadValue`, also for a workflow without an input."""
    if isinstance(workflow, str) or (input is None and workflow._hints.has_default):
        return encode(input, where=where)
    if not (workflow.takes_input or _is_empty(input)):
        raise workflow._takes_none(input, where)
    return encode(input, workflow.input_type, where=where)


def encode_scheduled(workflow: "Workflow[Any, Any] | str", input: object) -> Raw | None:
    """Returns None for the due time."""
    return None if input is NO_INPUT else Raw(encode_input(workflow, input))


def _is_empty(input: object) -> bool:
    return input is None or (isinstance(input, dict) and not input)


class _WithDefault(Protocol[I_contra, R_co]):
    def __call__(self, ctx: "Context", input: I_contra = ..., /) -> Coroutine[Any, Any, R_co]: ...


class _WorkflowDecorator:
    def __init__(self, options: dict[str, Any], registry: "Registry | None") -> None:
        checked_options(options, Workflow, "@workflow")
        self._options = options
        self._registry = registry

    @overload
    def __call__(self, fn: _WithDefault[I, R], /) -> Workflow[I | None, R]: ...
    @overload
    def __call__(self, fn: Callable[["Context"], Coroutine[Any, Any, R]], /) -> Workflow[None, R]: ...
    @overload
    def __call__(self, fn: Callable[["Context", I], Coroutine[Any, Any, R]], /) -> Workflow[I, R]: ...
    def __call__(self, fn: Callable[..., Coroutine[Any, Any, Any]], /) -> Any:
        made: Workflow[Any, Any] = Workflow(fn, **self._options)
        if self._registry is not None:
            self._registry.add(made)
        else:
            declare(made)
        return made


@overload
def workflow(fn: _WithDefault[I, R], /) -> Workflow[I | None, R]: ...
@overload
def workflow(fn: Callable[["Context"], Coroutine[Any, Any, R]], /) -> Workflow[None, R]: ...
@overload
def workflow(fn: Callable[["Context", I], Coroutine[Any, Any, R]], /) -> Workflow[I, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    queue: Queue | str | None = None,
    run_timeout_seconds: int | None = None,
    on_cancel: Literal["cancel", "wake"] = "cancel",
    strict: bool = False,
    output_schema_name: str | None = None,
    searchable: Sequence[str] = (),
    schedule: Schedulings | None = None,
    trigger_on: Triggerings | None = None,
    on_failure: OnFailure = "fail",
) -> _WorkflowDecorator: ...
def workflow(fn: Callable[..., Coroutine[Any, Any, Any]] | None = None, /, **options: Any) -> Any:
    """Make an `async def f(ctx, input)` a workflow. `name` is its name for clients, by default the function's.

    - `retry`: tries of the whole workflow if its code fails. Steps whose failures ended the try run again; steps whose
      failures were caught do not.
    - `run_timeout_seconds`: bounds the running time, without waits.
    - `on_cancel="wake"`: a cancelled execution that waits or is queued again runs its clean-up.
    - `on_failure="hold"`: after the last try the run is held, not failed, until `Client.act` decides.
    - `strict`: a step with another input than recorded is an error, and so are concurrent steps that nothing tells
      apart; by default both are only marked.
    - `searchable`: fields of payload and result for finding executions, such as `["payload.customer.id"]`.
    - `schedule` starts the workflow by the clock: a `Schedule`, five fields of cron (in UTC), or a list.
    - `trigger_on` starts the workflow from events: an `EventTrigger`, a topic, or a list.

        >>> @workflow(retry=2)
        ... async def order(ctx: "Context", order_id: int) -> str:
        ...     return "done"
    """
    decorator = _WorkflowDecorator(options, None)
    return decorator if fn is None else decorator(fn)


_declared: list[weakref.ref[Workflow[Any, Any]]] = []


def declare(made: Workflow[Any, Any]) -> None:
    """Lists the workflow in `Registry.declared()` while the workflow exists."""
    _declared.append(weakref.ref(made))


class Registry:
    """The workflows and queues that a worker serves.

    >>> app = Registry()
    >>> @app.workflow
    ... async def hello(ctx: "Context", name: str) -> str:
    ...     return f"Hello, {name}"
    >>> list(app.workflows)
    ['hello']
    """

    def __init__(self, *members: "Workflow[Any, Any] | Queue") -> None:
        self.workflows: dict[str, Workflow[Any, Any]] = {}
        self.queues: dict[str, Queue] = {}
        for member in members:
            self.add(member)

    @classmethod
    def of(cls, module: types.ModuleType) -> "Registry":
        found = cls()
        for member in vars(module).values():
            if isinstance(member, Workflow | Queue):
                found.add(member)
            elif isinstance(member, Registry):
                for inner in (*member.queues.values(), *member):
                    found.add(inner)
        return found

    @classmethod
    def declared(cls) -> "Registry":
        """All plain `@workflow`s of this process. The newest of equal names counts."""
        found = cls()
        _declared[:] = [one for one in _declared if one() is not None]
        for one in _declared:
            made = one()
            if made is not None:
                found.workflows.pop(made.name, None)
                found.add(made)
        return found

    def add(self, member: "Workflow[Any, Any] | Queue") -> None:
        if isinstance(member, Queue):
            known = self.queues.get(member.name)
            if known is not None and known is not member and known.spec() != member.spec():
                raise ValueError(f"Two different queues are declared as {member.name!r}: {known!r} and {member!r}.")
            self.queues[member.name] = member
            return
        other = self.workflows.get(member.name)
        if other is not None and other is not member:
            raise ValueError(
                f"Two workflows are called {member.name!r}: {other.fn.__module__}.{other.fn.__qualname__} and "
                f"{member.fn.__module__}.{member.fn.__qualname__}. Give one of them another name=."
            )
        self.workflows[member.name] = member
        if member.queue is not None and member._has_declared_queue:
            self.add(member.queue)

    @overload
    def workflow(self, fn: _WithDefault[I, R], /) -> Workflow[I | None, R]: ...
    @overload
    def workflow(self, fn: Callable[["Context"], Coroutine[Any, Any, R]], /) -> Workflow[None, R]: ...
    @overload
    def workflow(self, fn: Callable[["Context", I], Coroutine[Any, Any, R]], /) -> Workflow[I, R]: ...
    @overload
    def workflow(
        self,
        /,
        *,
        name: str | None = None,
        retry: Retry | None = None,
        queue: Queue | str | None = None,
        run_timeout_seconds: int | None = None,
        on_cancel: Literal["cancel", "wake"] = "cancel",
        strict: bool = False,
        output_schema_name: str | None = None,
        searchable: Sequence[str] = (),
        schedule: Schedulings | None = None,
        trigger_on: Triggerings | None = None,
        on_failure: OnFailure = "fail",
    ) -> _WorkflowDecorator: ...
    def workflow(self, fn: Callable[..., Coroutine[Any, Any, Any]] | None = None, /, **options: Any) -> Any:
        decorator = _WorkflowDecorator(options, self)
        return decorator if fn is None else decorator(fn)

    def __iter__(self) -> "Iterator[Workflow[Any, Any]]":
        return iter(self.workflows.values())

    def __contains__(self, name: object) -> bool:
        return name in self.workflows

    def __getitem__(self, name: str) -> Workflow[Any, Any]:
        return self.workflows[name]

    def specs(self) -> tuple[list[WorkflowSpec], list[QueueSpec], list[ScheduleSpec], list[TriggerSpec]]:
        return (
            [one.spec() for one in self],
            [one.spec() for one in self.queues.values()],
            [each.spec(one.name, encode_scheduled(one, each.input)) for one in self for each in one.schedules],
            [each.spec(one.name) for one in self for each in one.triggers],
        )
