"""The event loop of workflow code: no input/output, no clock, no threads.

- *Settled is observable.* `pump` runs callbacks until all have run, and nothing else runs in between.
- *The journal owns time.* `fire` runs a timer when the journal says so.
- *Tasks and futures hash by number*, not by address, so sets iterate alike in every replay.
- *Each task has a scope* that counts the keys of its calls (see `keys`).

Sockets, executors, signals and other threads raise `Misplaced`.
"""

import asyncio
import contextvars
import heapq
import logging
import math
import sys
import zlib
from asyncio import current_task
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, Final, NoReturn, Protocol, TypeAlias, TypeVar, TypeVarTuple

from perdure.sdk.base.checks import checked_name
from perdure.sdk.base.errors import DuplicateKey
from perdure.sdk.base.interrupts import ENDINGS, is_interrupt
from perdure.sdk.replay import patches
from perdure.sdk.replay.eviction import close, close_generator, collecting
from perdure.sdk.replay.handles import InnerFuture, InnerHandle, InnerTask, InnerTimer
from perdure.sdk.replay.inline_executor import InlineExecutor
from perdure.sdk.replay.keys import GENERATED, KeyScope, named_path, next_path, quoted
from perdure.sdk.replay.refusals import misplaced, no_threads, refuse_the_rest, threads_misplaced
from perdure.sdk.replay.task_identity import Swap, swapped

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_log = logging.getLogger("perdure.workflow")
_get_running_loop = asyncio._get_running_loop
_set_running_loop = asyncio._set_running_loop
_enter_task = asyncio.tasks._enter_task
_leave_task = asyncio.tasks._leave_task

if sys.version_info >= (3, 14):  # a thread has one current task, not one for each loop
    _swap_current_task = asyncio.tasks._swap_current_task

    def _suspend_task(outer: Any) -> Any:
        return None if outer is None else _swap_current_task(outer, None)

    def _resume_task(outer: Any, task: Any) -> None:
        if task is not None:
            _swap_current_task(outer, task)
else:

    def _suspend_task(outer: Any) -> Any:
        return None

    def _resume_task(outer: Any, task: Any) -> None:
        return


SPIN_MAX: Final = 100_000
"""A busy loop (`while not ready: await asyncio.sleep(0)`) counts as settled after this number of callbacks."""

FAR_US: Final = 253_402_300_799_000_000
"""The end of the year 9999."""


ExceptionHandler: TypeAlias = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


class TimerKeeper(Protocol):
    def timer_asked(self, key: str) -> str: ...
    def timer_cancelled(self, key: str, due_us: int) -> None: ...


class _Nobody:
    def timer_asked(self, key: str) -> str:
        return key

    def timer_cancelled(self, key: str, due_us: int) -> None:
        return


_NOBODY: Final = _Nobody()


class InnerLoop(asyncio.AbstractEventLoop):
    _exception_handler: tuple[ExceptionHandler, contextvars.Context] | None = None

    def __init__(self, seed: str, keeper: TimerKeeper) -> None:
        self.now_us = 0
        self.turn = 0
        """The turn counts outcomes and moments."""
        self.tasks_made = 0
        self.ready: deque[InnerHandle | InnerTimer] | None = None
        """None while empty: a deque would be a third of a sleeping loop's memory."""
        self.timers: dict[str, InnerTimer] = {}
        self.threads_seen = False
        self.closed = False
        self._heap: list[tuple[int, int, InnerTimer]] = []
        self._keeper = keeper
        self._number = zlib.crc32(seed.encode()) << 16
        self._spun = 0
        self._root = KeyScope("")
        self._loose: KeyScope | None = None
        self._named: dict[str, KeyScope] = {}
        self._tasks: list[InnerTask] = []
        self._prune_at = 16
        if "anyio" in sys.modules and not patches.anyio_is_patched:
            patches.patch_anyio(InnerLoop)

    def enter(self) -> tuple[Any, Any, Any]:
        outer = _get_running_loop()
        before = (outer, sys.get_asyncgen_hooks(), _suspend_task(outer))
        _set_running_loop(self)
        sys.set_asyncgen_hooks(None, self._finalize_generator)
        return before

    def leave(self, before: tuple[Any, Any, Any]) -> None:
        outer, hooks, task = before
        _set_running_loop(outer)
        sys.set_asyncgen_hooks(*hooks)
        _resume_task(outer, task)

    def pump(self, budget: int) -> int:
        """Returns the rest of `budget`. At 0 and unsettled, pump again."""
        budget_here = min(budget, SPIN_MAX - self._spun)
        left = budget_here
        while self.ready and left:
            left -= 1
            handle = self.ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle._context.run(handle._callback, *handle._args)
            except BaseException as error:
                if is_interrupt(error):
                    raise
                if isinstance(error, ENDINGS) and isinstance(getattr(handle._callback, "__self__", None), InnerTask):
                    continue  # The task's own outcome; asyncio raises it here as well.
                self.call_exception_handler(
                    {"message": f"Exception in callback {handle!r}", "exception": error, "handle": handle}
                )
        if not self.ready:
            self.ready = None
        self._spun += budget_here - left
        return budget - (budget_here - left)

    def _make_ready(self, handle: InnerHandle | InnerTimer) -> None:
        ready = self.ready
        if ready is None:
            ready = self.ready = deque()
        ready.append(handle)

    def _drop_ready(self) -> None:
        if self.ready is not None:
            self.ready.clear()  # in place: a pump may be under way

    @property
    def is_settled(self) -> bool:
        return not self.ready or self._spun >= SPIN_MAX

    def move(self, at_us: int) -> None:
        self._spun = 0
        self.turn += 1
        if at_us > self.now_us:
            self.now_us = at_us

    def fire(self, timer: InnerTimer, *, early: bool = False) -> None:
        """All timers of one moment fire before a task runs, as in asyncio. `early`: an act fires only this timer."""
        due_us = timer.due_us
        del self.timers[timer.key]
        self._make_ready(timer)
        if early:  # later timers count from now
            return
        self.move(due_us)  # The clock that noticed the timer may be ahead of the row's clock.
        while (other := self.earliest()) is not None and other.due_us == due_us:
            del self.timers[other.key]
            self._keeper.timer_cancelled(other.key, due_us)  # A journal of 0.1.0 has a row for it.
            self._make_ready(other)

    def earliest(self) -> InnerTimer | None:
        heap = self._heap
        while heap and not self._is_open(heap[0][2]):
            heapq.heappop(heap)
        return heap[0][2] if heap else None

    def shut(self) -> None:
        """`Evicted` passes `except Exception` and handlers of CancelledError."""
        if self.closed:
            return
        self.closed = True
        self._keeper = _NOBODY  # leaves no cycle
        self._drop_ready()
        self.timers.clear()
        self._heap.clear()
        tasks, self._tasks = self._tasks, []
        pending: list[InnerTask] = []
        for task in tasks:
            if task.done():
                task.let_go()
            else:
                pending.append(task)
        if not pending:
            return
        waited_for = [getattr(task, "_fut_waiter", None) for task in pending]
        before = self.enter()
        try:
            for task in reversed(pending):
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]  # as asyncio's own gather does
                    coro = task.get_coro()
                    if coro is not None:
                        _enter_task(self, task)  # anyio's scopes must be left by the task that entered them
                        try:
                            close(coro)
                        finally:
                            _leave_task(self, task)
        finally:
            # A future and its waiting tasks refer to each other.
            for future in (*pending, *waited_for):
                if isinstance(future, asyncio.Future):
                    asyncio.Future.cancel(future)  # not the `cancel` of tasks and `gather`, which only pass it on
            self.leave(before)
            self._drop_ready()

    def tasks(self) -> list[InnerTask]:
        """Includes done tasks while there are few."""
        return self._tasks

    def living_tasks(self) -> list[InnerTask]:
        return [task for task in self._tasks if not task.done()]

    def key_for(self, name: str) -> str:
        if _get_running_loop() is not self:
            raise misplaced(name)
        task = current_task(self)
        scope = self._loose_scope() if task is None else task.scope  # type: ignore[attr-defined]  # all tasks here are ours
        counts: dict[str, int] = scope.counts
        count = counts.get(name, 0) + 1
        counts[name] = count
        name = quoted(name)
        return f"{scope.prefix}{name}" if count == 1 else f"{scope.prefix}{name}#{count}"

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Count keys under `name`, for library code with its own tasks."""
        task: Any = current_task(self)
        before = task.scope
        path = named_path(name)
        task.scope = self._named.setdefault(path, KeyScope(f"{path}/"))
        try:
            yield
        finally:
            task.scope = before

    def _loose_scope(self) -> KeyScope:
        if self._loose is None:
            self._loose = KeyScope("~/")
        return self._loose

    def claim_key(self, key: str) -> str:
        """Unique in the whole execution."""
        if _get_running_loop() is not self:
            raise misplaced(key)
        key = checked_name(key, "key")
        if GENERATED.search(key):
            raise ValueError(
                f"The key {key!r} looks like one that Perdure makes ('3/fetch', 'fetch#2'); "
                "do not begin with a number and a slash, end with # and a number, or use %."
            )
        counts = self._root.counts
        if key in counts:
            raise DuplicateKey(
                f"The key {key!r} is used twice in this execution. A key names one call; "
                "add a part that differs, such as an order's number or a loop's counter."
            )
        counts[key] = 1
        return key

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def time(self) -> float:
        return self.now_us / 1e6

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> InnerHandle:
        handle = InnerHandle(callback, args, self, contextvars.copy_context() if context is None else context)
        if not self.closed:
            self._make_ready(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> InnerTimer:
        return self._call_at_us(self.now_us + seconds_to_us(delay), callback, args, context)

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> InnerTimer:
        due_us = seconds_to_us(when)
        if due_us / 1e6 < when < FAR_US / 1e6:  # Code that compares time() with `when` must find it reached.
            due_us += 1
        return self._call_at_us(due_us, callback, args, context)

    def _call_at_us(
        self, due_us: int, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> InnerTimer:
        if context is None:
            context = contextvars.copy_context()
        due_us = min(due_us, FAR_US)
        waits = due_us > self.now_us and not self.closed
        key = self._keeper.timer_asked(self.key_for("timer")) if waits else ""
        timer = InnerTimer(key, due_us, callback, args, loop=self, context=context)
        if waits:
            self.timers[key] = timer
            heapq.heappush(self._heap, (due_us, self.next_number(), timer))
        elif not self.closed:
            self._make_ready(timer)
        return timer

    def _is_open(self, timer: InnerTimer) -> bool:
        """A closed timer's key may belong to another timer since (see `swap`)."""
        return self.timers.get(timer.key) is timer

    def forget_timer(self, timer: InnerTimer) -> None:
        if not self._is_open(timer):
            return
        del self.timers[timer.key]
        self._keeper.timer_cancelled(timer.key, timer.due_us)
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self.timers):
            self._heap = [entry for entry in self._heap if self._is_open(entry[2])]
            heapq.heapify(self._heap)

    def rename_timer(self, key: str, new_key: str) -> None:
        timer = self.timers.pop(key)
        timer.key = new_key
        self.timers[new_key] = timer

    def has_task(self, scope: str) -> bool:
        return any(task.own_scope.prefix == scope for task in self._tasks)

    def task_made_at(self, scope: str) -> int:
        return next((task.made_at for task in self._tasks if task.own_scope.prefix == scope), 0)

    def own_scope(self) -> KeyScope | None:
        """The scope of the running task. None in the main task and in callbacks."""
        task = current_task(self)
        scope: KeyScope | None = None if task is None else task.own_scope  # type: ignore[attr-defined]  # as in key_for
        return None if scope is self._root else scope

    def swap(self, swap: Swap) -> None:
        for timer in self.timers.values():
            timer.key = swapped(timer.key, swap)
        self.timers = {timer.key: timer for timer in self.timers.values()}
        for task in self._tasks:
            scope = task.own_scope  # `task.scope`, if `within` a name, has no number.
            if not scope.prefix.startswith(swap):
                continue
            if task.get_name() == scope.prefix[:-1]:
                task.set_name(swapped(scope.prefix, swap)[:-1])
            scope.prefix = swapped(scope.prefix, swap)

    def create_future(self) -> asyncio.Future[Any]:
        return InnerFuture(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> asyncio.Task[_T]:
        parent = current_task(self)
        above: KeyScope = self._loose_scope() if parent is None else parent.scope  # type: ignore[attr-defined]  # as in key_for
        path = next_path(above)
        return self._add_task(coro, KeyScope(path + "/"), path if name is None else name, context)

    def create_main(self, coro: Coroutine[Any, Any, Any], context: contextvars.Context) -> InnerTask:
        return self._add_task(coro, self._root, "workflow", context)

    def _add_task(self, coro: Any, scope: KeyScope, name: str, context: contextvars.Context | None) -> InnerTask:
        task = InnerTask(coro, self, scope, name, context)
        if self.closed:  # started by a `finally` block during eviction: it never runs
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # as in shut
            close(coro)
            return task
        self.tasks_made += 1
        # asyncio holds tasks weakly, and garbage collections do not replay.
        self._tasks.append(task)
        if len(self._tasks) >= self._prune_at:
            self._tasks = self.living_tasks()
            self._prune_at = 2 * len(self._tasks) + 16
        return task

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        pass

    def is_running(self) -> bool:
        return _get_running_loop() is self

    def is_closed(self) -> bool:
        return self.closed

    def get_task_factory(self) -> None:
        return None

    def set_exception_handler(self, handler: ExceptionHandler | None) -> None:
        if handler is not None and not callable(handler):
            raise TypeError(f"A callable object or None is expected, got {handler!r}")
        self._exception_handler = None if handler is None else (handler, contextvars.copy_context())

    def get_exception_handler(self) -> ExceptionHandler | None:
        return None if self._exception_handler is None else self._exception_handler[0]

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        _log.error("%s", context.get("message", "Unhandled error in workflow code"), exc_info=context.get("exception"))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An error at a moment that does not replay is only logged."""
        if self.closed:
            return
        if self._exception_handler is None or collecting() or _get_running_loop() is not self:
            return self.default_exception_handler(context)
        handler, variables = self._exception_handler
        try:
            variables.copy().run(handler, self, context)
        except BaseException as error:
            if is_interrupt(error):
                raise
            self.default_exception_handler({"message": "Unhandled error in exception handler", "exception": error})

    def call_soon_threadsafe(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> NoReturn:
        self.threads_seen = True
        raise threads_misplaced("A thread cannot reach into a workflow's code")

    def run_in_executor(self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts) -> asyncio.Future[_T]:
        """Refuses executors with threads."""
        if not isinstance(executor, InlineExecutor):
            raise no_threads()
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def _finalize_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        running = _get_running_loop()
        if self.closed or collecting() or running is not self:
            # At a moment that does not replay, its `finally` runs but cannot ask for anything.
            _set_running_loop(self if self.closed else None)
            try:
                close_generator(generator)
            finally:
                _set_running_loop(running)
            return
        path = next_path(self._loose_scope())
        self._add_task(generator.aclose(), KeyScope(path + "/"), path, None)


refuse_the_rest(InnerLoop)
patches.patch_asyncio(InnerLoop)


def seconds_to_us(seconds: float) -> int:
    if not seconds < FAR_US / 1e6:  # also true for NaN
        if math.isnan(seconds):
            raise ValueError("A time or a delay must not be NaN.")
        return FAR_US
    return math.ceil(max(seconds, 0.0) * 1e6)
