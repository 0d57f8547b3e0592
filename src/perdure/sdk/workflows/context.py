"""A call allocates its key at once and asks when awaited, so `asyncio.gather(ctx.step(…), ctx.step(…))` works as in
plain asyncio.

Methods return `Coroutine[object, None, T]`. With Any, mypy would infer Any for a `gather` of several types.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any, Final, NoReturn, ParamSpec, TypeVar, TypeVarTuple, Unpack, overload

from msgspec import Raw

from perdure.sdk.base.checks import checked_int, checked_name, checked_text
from perdure.sdk.base.errors import Misplaced
from perdure.sdk.payloads.values import encode
from perdure.sdk.replay.calls import DurableCall
from perdure.sdk.replay.refusals import misplaced
from perdure.sdk.workflows.children import (
    OPEN_CHILDREN,
    ChildHandle,
    Mapped,
    child_call,
    child_id,
    child_result,
    run_all,
)
from perdure.sdk.workflows.events import (
    Event,
    WaitOptions,
    answer_call,
    event_call,
    publish,
    publish_call,
    question_call,
    send_answer,
    take_answer,
    take_event,
)
from perdure.sdk.workflows.execution_state import ExecutionState
from perdure.sdk.workflows.logs import add_line, to_log_line
from perdure.sdk.workflows.start_options import ChildOptions
from perdure.sdk.workflows.steps import (
    Errors,
    OnFailure,
    OnRetry,
    Retry,
    StepChoices,
    call_step,
    not_a_function,
    running_step,
    step_plan,
)
from perdure.sdk.workflows.streams import to_emitted
from perdure.sdk.workflows.workflow import Queue, Workflow
from perdure.wire.agents.approvals import AnswerState
from perdure.wire.base.codec import LABEL_BYTES_MAX, NAME_BYTES_MAX, scrub_text
from perdure.wire.runs.streams import ITEM_BYTES_MAX

P = ParamSpec("P")
T = TypeVar("T")
I = TypeVar("I")  # noqa: E741  # as in workflow.py
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

PROGRESS_BYTES_MAX: Final = 500


@lru_cache(maxsize=4_096)
def _step_name(name: str) -> str:
    return checked_name(name, "the name of a step", NAME_BYTES_MAX)


_INNER: Final = {*ExecutionState.__slots__, "is_active"}


class _WithoutInner(type):
    def __dir__(cls) -> list[str]:
        return [name for name in super().__dir__() if name not in _INNER]


class Context(ExecutionState, metaclass=_WithoutInner):
    """The first argument of a workflow's function. In steps, use only `emit` and `idempotency_key`."""

    __slots__ = ()

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in _INNER]

    @property
    def idempotency_key(self) -> str:
        """The step's key for services that drop repeats: the same in every try, attempt, fork and retry."""
        info = running_step.get()
        if info is None:
            raise Misplaced(
                "ctx.idempotency_key belongs to a step; read it inside the step's body (or use current_step())."
            )
        return info.idempotency_key

    def now(self) -> datetime:
        """The journal's time in UTC."""
        return datetime.fromtimestamp(self.machine.now_us / 1e6, UTC)

    def uuid(self) -> uuid.UUID:
        """A random UUID, the same in every replay. Not for steps."""
        if not self.is_active:
            raise misplaced("ctx.uuid()")
        return self.machine.uuid()

    @property
    def random(self) -> random.Random:
        """The same numbers in every replay: `ctx.random.choice(…)`. Not for steps."""
        if not self.is_active:
            raise misplaced("ctx.random")
        return self.machine.random()

    @overload
    def step(
        self, name: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[object, None, T]: ...
    @overload
    def step(
        self, name: str, fn: Callable[[*Ts], Awaitable[T]], /, *args: *Ts, **options: Unpack[StepChoices]
    ) -> Coroutine[object, None, T]: ...
    @overload
    def step(
        self, name: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[object, None, T]: ...
    @overload
    def step(
        self, name: str, fn: Callable[[*Ts], T], /, *args: *Ts, **options: Unpack[StepChoices]
    ) -> Coroutine[object, None, T]: ...
    @overload
    def step(
        self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[object, None, T]: ...
    @overload
    def step(
        self, fn: Callable[[*Ts], Awaitable[T]], /, *args: *Ts, **options: Unpack[StepChoices]
    ) -> Coroutine[object, None, T]: ...
    @overload
    def step(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, T]: ...
    @overload
    def step(
        self, fn: Callable[[*Ts], T], /, *args: *Ts, **options: Unpack[StepChoices]
    ) -> Coroutine[object, None, T]: ...
    def step(  # type: ignore[misc]  # mypy does not see that *args takes *Ts
        self,
        first: str | Callable[..., Any],
        /,
        *args: Any,
        retry: Retry | None = None,
        timeout: float | timedelta | None = None,
        key: str | None = None,
        retry_if: Errors | None = None,
        fatal: Errors | None = None,
        on_failure: OnFailure | None = None,
        on_retry: OnRetry | None = None,
        label: str | None = None,
        quiet: bool | None = None,
        **kwargs: Any,
    ) -> Coroutine[object, None, Any]:
        """Run `fn(*args)` as a step. Its outcome is recorded before the next line runs, and replays return it.

        Async functions run in the worker's loop, sync ones in a thread. `ctx.step("name", fn, …)` names the step; the
        default name is the function's. `retry` is a RetryPolicy or a number of tries, `timeout` as in `@step`, `key`
        replaces the generated key. Raises `StepFailed` when the last try fails; with `on_failure="hold"` the execution
        is held instead. See `@step` for `on_retry`. Timelines show the call's `label`, at most 200 bytes (`label="SKU
        7712"`), and fold `quiet` steps with their neighbours.

            total = await ctx.step("sum up", add, 1, 2, retry=3)
        """
        if isinstance(first, str):
            if not args:
                raise TypeError(f"ctx.step({first!r}, …) lacks the function to run.")
            fn, args = args[0], args[1:]
            name: str | None = first
        else:
            fn, name = first, None
        if not callable(fn):
            raise not_a_function(fn)
        plan = step_plan(fn)
        name = plan.name if name is None else _step_name(name)
        settings = plan.settings
        chosen = (retry, timeout, retry_if, fatal, on_failure, on_retry, quiet)
        if chosen.count(None) < len(chosen):
            settings = settings.replaced(
                retry, timeout, retry_if, fatal, on_failure=on_failure, on_retry=on_retry, quiet=quiet
            )
        if label is not None:
            label = scrub_text(checked_text(label, "label"), LABEL_BYTES_MAX)
        return call_step(self.machine, plan, args, kwargs, name=name, settings=settings, key=key, label=label)

    def sleep(self, duration: float | timedelta) -> Coroutine[object, None, None]:
        """Sleep durably, for seconds or months, as `asyncio.sleep` does here."""
        return self.machine.begins("ctx.sleep()", partial(asyncio.sleep, _seconds(duration)))

    def sleep_until(self, moment: datetime) -> Coroutine[object, None, None]:
        """Sleep until a moment with a time zone; return at once for a past moment."""
        return self.machine.begins("ctx.sleep_until()", partial(_sleep_until, moment))

    @overload
    def wait_for_event(self, topic: str, **options: Unpack[WaitOptions]) -> Coroutine[object, None, Event[object]]: ...
    @overload
    def wait_for_event(
        self, topic: str, data_type: type[T], **options: Unpack[WaitOptions]
    ) -> Coroutine[object, None, Event[T]]: ...
    def wait_for_event(
        self,
        topic: str,
        data_type: Any = Any,
        *,
        match: Mapping[str, object] | None = None,
        timeout: float | timedelta | None = None,
        after: int | None = None,
        latest: bool = False,
        key: str | None = None,
    ) -> Coroutine[object, None, Event[Any]]:
        """Wait for the next event of `topic` that this execution has not taken. Events before its creation do not
        count.

        `match={"order_id": 7}` takes only events with these top-level fields. `after=n` skips events up to number n,
        `latest=True` all published so far. Raises `TimeoutError` after `timeout`, in seconds or a timedelta.
        """
        seconds = None if timeout is None else _seconds(timeout)
        call = event_call(self.machine, topic, match, after=after, latest=latest, timeout=seconds, key=key)
        return self.machine.made(call, take_event(self.machine, call, data_type, seconds))

    @overload
    def suspend(
        self, key: str, data: object = None, *, timeout: float | timedelta | None = None
    ) -> Coroutine[object, None, object]: ...
    @overload
    def suspend(
        self, key: str, data: object = None, *, answer_type: type[T], timeout: float | timedelta | None = None
    ) -> Coroutine[object, None, T]: ...
    def suspend(
        self, key: str, data: object = None, *, answer_type: Any = Any, timeout: float | timedelta | None = None
    ) -> Coroutine[object, None, Any]:
        """Show the question `data`, and wait for the answer under `key`.

        Pages show the fields of `answer_type`. Raises `TimeoutError` after `timeout` (seconds or a timedelta), and
        `BadValue` if a validator of `answer_type` refuses the answer. The refused answer stays, so ask again under
        another key.

            answer = await ctx.suspend("approve", {"amount": 120}, answer_type=Decision, timeout=86_400)
        """
        shown = Raw(encode(data, where="data"))
        seconds = None if timeout is None else _seconds(timeout)
        call = question_call(self.machine, shown, seconds, key, answer_type=answer_type)
        if not self.machine.replaying:  # a person who follows the stream may have the answer
            small = memoryview(shown).nbytes < ITEM_BYTES_MAX // 2
            self.outbox.add(
                to_emitted("question", {"step_key": call.key, "data": data if small else None}, call.key, 1)
            )
        return self.machine.made(call, take_answer(self.machine, call, answer_type, seconds))

    def resume(
        self, execution_id: str, step_key: str, data: object = None, *, key: str | None = None
    ) -> Coroutine[object, None, AnswerState]:
        """Answer a suspended step of another execution, exactly once.

        Returns `"answered"`, or `"early"` if no step asks under the key yet. Only a later step that shows nothing
        (`ctx.suspend(key)`) takes an early answer. Raises `Conflict` if the step has another answer, and `NotFound`.
        """
        call = answer_call(self.machine, execution_id, step_key, data, key)
        return self.machine.made(call, send_answer(self.machine, call))

    def publish(
        self,
        topic: str,
        data: object = None,
        *,
        event_type: str | None = None,
        dedup_key: str | None = None,
        key: str | None = None,
    ) -> Coroutine[object, None, int]:
        """Publish an event, exactly once. Returns the event's number in the topic."""
        call = publish_call(self.machine, topic, data, event_type=event_type, dedup_key=dedup_key, key=key)
        return self.machine.made(call, publish(self.machine, call))

    @overload
    def start_child(
        self, workflow: Workflow[None, R], input: None = None, **options: Unpack[ChildOptions]
    ) -> Coroutine[object, None, ChildHandle[R]]: ...
    @overload
    def start_child(
        self, workflow: Workflow[I, R], input: I, **options: Unpack[ChildOptions]
    ) -> Coroutine[object, None, ChildHandle[R]]: ...
    @overload
    def start_child(
        self, workflow: str, input: object = None, **options: Unpack[ChildOptions]
    ) -> Coroutine[object, None, ChildHandle[object]]: ...
    def start_child(
        self, workflow: Workflow[Any, Any] | str, input: Any = None, **options: Any
    ) -> Coroutine[object, None, ChildHandle[Any]]:
        """Start a child execution, exactly once. `await handle.result()` gives its result.

        Takes the options of `Client.start` except `at`, `deployment_id` and `webhook_url`. `execution_key` is the
        child's readable key, `key` the call's key in the journal. By default the child gets this execution's session
        and user.
        """
        made = child_call(self, workflow, input, **options)
        return self.machine.made(made[0], self._start_child(*made))

    async def _start_child(self, call: DurableCall, name: str, result_type: Any) -> ChildHandle[Any]:
        row = await self.machine.wait(call)
        return ChildHandle(child_id(row, name), call.key, name, result_type, self)

    @overload
    def run_child(
        self, workflow: Workflow[None, R], input: None = None, **options: Unpack[ChildOptions]
    ) -> Coroutine[object, None, R]: ...
    @overload
    def run_child(
        self, workflow: Workflow[I, R], input: I, **options: Unpack[ChildOptions]
    ) -> Coroutine[object, None, R]: ...
    @overload
    def run_child(
        self, workflow: str, input: object = None, **options: Unpack[ChildOptions]
    ) -> Coroutine[object, None, object]: ...
    def run_child(
        self, workflow: Workflow[Any, Any] | str, input: Any = None, **options: Any
    ) -> Coroutine[object, None, Any]:
        """Start a child like `start_child`, and wait for the result.

        Raises `ChildFailed` or `ChildCancelled`, and `BudgetExceeded` with the last words as `answer` if a budget ended
        an agent. A time-out or a cancelled branch does not cancel the child.
        """
        made = child_call(self, workflow, input, **options, awaited=True)
        return self.machine.made(made[0], self._run_child(*made))

    async def _run_child(self, call: DurableCall, name: str, result_type: Any) -> Any:
        row = await self.machine.wait(call)
        id = child_id(row, name)
        return child_result(await self.machine.child_end(call.key), id, name, result_type)

    def map_children(
        self,
        workflow: Workflow[I, R],
        inputs: Iterable[I] | AsyncIterable[I],
        *,
        limit: int = OPEN_CHILDREN,
        queue: Queue | str | None = None,
        concurrency_key: Callable[[I], str | None] | str | None = None,
        priority: int = 0,
        tags: Mapping[str, str] | None = None,
        run_timeout_seconds: int | None = None,
    ) -> Coroutine[object, None, Mapped[R]]:
        """Run a child for each input, at most `limit` at a time, and wait for all.

        Outcomes are in the order of the inputs. An async generator of inputs may run steps. A failed child does not
        stop the rest. The children share a batch id. `concurrency_key` is one key for all, or a function of the input.

            done = await ctx.map_children(verify, packages, limit=20)
            sizes = done.results()          # or look at done.outcomes and done.failures
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit!r}.")

        async def run() -> Mapped[R]:
            place = f"{self.execution_id}/{self.machine.loop.key_for('map_children')}"
            call_for = partial(
                child_call,
                self,
                workflow,
                queue=queue,
                priority=priority,
                tags=tags,
                run_timeout_seconds=run_timeout_seconds,
                batch_id=str(uuid.uuid5(uuid.NAMESPACE_OID, place)),
                awaited=True,
            )
            return await run_all(self, call_for, inputs, limit, concurrency_key)

        return self.machine.begins("ctx.map_children()", run)

    def log(self, text: str, *args: object, level: int = logging.INFO) -> None:
        """Write a line to the execution's log, once for all replays.

        `logging` works as well, also in steps.
        """
        # Replays do the same, to raise the same errors.
        line = to_log_line(self, checked_int(level, "level"), checked_text(text % args if args else text, "text"))
        if not self.machine.replaying:
            add_line(self, line)

    def progress(self, done: float, total: float | str | None = None, text: str | None = None) -> None:
        """Report progress to clients watching the execution: `ctx.progress(3, 10, "shipping")`, or a share from 0 to 1,
        `ctx.progress(0.3, "shipping")`.

        Progress is neither a step nor in the journal. Only the newest report counts; `text` is cut to 500 bytes.
        """
        if isinstance(total, str):
            total, text = None, total
        if text is not None:
            text = scrub_text(checked_text(text, "text"), PROGRESS_BYTES_MAX)
        progress = Raw(encode({"done": done, "total": total, "text": text}, where="progress"))  # as in `log`
        if not self.machine.replaying:
            self.pending_progress[:] = [progress]

    def emit(self, kind: str, data: object = None) -> None:
        """Send an item to clients following the execution live (`handle.stream()`).

        Works in workflow code, once for all replays, and in steps. Items are not in the journal; an execution keeps the
        newest 10,000. `data` is JSON of at most 64 KiB, else `BadValue`.

            ctx.emit("token", "Hel")
        """
        step = running_step.get()
        if step is not None:
            step.emit(kind, data)
            return
        key = self.machine.loop.key_for("emit()")  # the same in every replay, so that a repeat is recognized
        item = to_emitted(kind, data, key, 1)  # as in `log`
        if not self.machine.replaying:
            self.outbox.add(item)

    def __repr__(self) -> str:
        return f"<Context of {self.workflow_id} {self.execution_id}>"

    def __reduce__(self) -> NoReturn:
        raise Misplaced("A Context cannot be stored or sent; pass the values that the step needs.")


def _seconds(duration: float | timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


async def _sleep_until(moment: datetime) -> None:
    if moment.tzinfo is None:
        raise ValueError(f"sleep_until wants a datetime with a time zone, got {moment!r}.")
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    timer = loop.call_at(moment.timestamp(), _wake, future)
    try:
        await future
    finally:
        timer.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
