"""The small event loop that workflow code runs in: no input/output, no clock, no thread.

Plain asyncio code is replayed by running it in this loop. It differs from the ordinary one in what makes code repeat
itself exactly:

- *Settled is observable.* `pump` runs callbacks until none is left; nothing else ever runs in between.
- *Timers are questions.* `call_at` notes a key and a due time. The loop never fires a timer by itself:
  `fire` does, when the journal says so. `time()` is the journal's.
- *Tasks hash by number*, not by address, so that `TaskGroup`, `wait` and friends, which keep tasks in sets, iterate
  alike in every replay. So do futures made by the loop, `gather`'s futures and anyio's cancel scopes.
- *Each task has a scope*, given at its creation, in which the keys of its calls are counted: `fetch`, `fetch#2`; in the
  third child task `3/fetch`.

What cannot be replayed (sockets, executors, signals, other threads) raises `Misplaced`, which says what to do instead.
"""

import asyncio
import contextlib
import contextvars
import gc
import hashlib
import heapq
import inspect
import logging
import math
import re
import sys
import types
import zlib
from asyncio import current_task
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from typing import Any, Final, NoReturn, Protocol, TypeVar, TypeVarTuple

from perdure.sdk.errors import DuplicateKey, Evicted, Misplaced
from perdure.wire.codec import KEY_BYTES_MAX, check_name

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_log = logging.getLogger("perdure.workflow")

SPIN_MAX: Final = 100_000
"""Callbacks between two outcomes after which a loop that never comes to rest is taken as settled. A fixed number, so a
busy loop (`while not ready: await asyncio.sleep(0)`) behaves alike in every replay."""

FAR_US: Final = 253_402_300_799_000_000
"""The last second of the year 9999: what a timer without end is due at."""

KEY_PART_MAX: Final = 120
"""Characters of a name or of a scope's path that go into a key; of longer ones a hash does. Keys stay below
KEY_BYTES_MAX, whatever the alphabet."""
_GENERATED: Final = re.compile(r"^(?:\d+|~\w*)/|#\d+$|%")


class Scope:
    """Where keys are counted. Belongs to a task; calls made by bare callbacks share the scope `~/`."""

    __slots__ = ("children", "counts", "prefix")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.counts: dict[str, int] = {}
        self.children = 0


class InnerTask(asyncio.Task[Any]):
    """A task of workflow code. Its name is the path of its scope, alike in every replay."""

    __slots__ = ("_number", "scope")

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        loop: "InnerLoop",
        scope: Scope,
        name: str,
        context: contextvars.Context | None,
    ) -> None:
        self._number = loop.next_number()
        self.scope = scope
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self._number


class InnerFuture(asyncio.Future[Any]):
    """A future of workflow code; numbered when somebody first hashes it."""

    __slots__ = ("_number",)

    def __hash__(self) -> int:
        try:
            return self._number
        except AttributeError:
            loop = self.get_loop()
            assert isinstance(loop, InnerLoop)
            self._number: int = loop.next_number()
            return self._number


class InnerHandle(asyncio.Handle):
    """A callback in the ready queue."""

    __slots__ = ()

    _callback: Any
    _args: Any
    _loop: Any

    def __init__(  # The base class would look for a debug mode that we do not have.
        self, callback: Callable[..., object], args: tuple[Any, ...], loop: "InnerLoop", context: contextvars.Context
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False
        self._loop = loop
        self._repr = None
        self._source_traceback = None

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback = None
            self._args = None


class InnerTimer(asyncio.TimerHandle):
    """A callback that waits for the journal's timer row `key`."""

    __slots__ = ("due_us", "key")

    _callback: Any
    _args: Any
    _loop: Any

    def __init__(
        self,
        key: str,
        due_us: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: "InnerLoop",
        context: contextvars.Context,
    ) -> None:
        self.key = key
        self.due_us = due_us
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False
        self._loop = loop
        self._repr = None
        self._source_traceback = None
        self._when = due_us / 1e6
        self._scheduled = True

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._callback = None
            self._args = None
            self._loop.forget_timer(self)


class TimerKeeper(Protocol):
    def timer_asked(self, key: str) -> str: ...
    def timer_cancelled(self, key: str) -> None: ...


class InnerLoop(asyncio.AbstractEventLoop):
    """One execution's loop. Its `keeper` may change the key of a new timer, and hears of timers that were given up."""

    def __init__(self, seed: str, keeper: TimerKeeper) -> None:
        self.now_us = 0
        self.ready: deque[InnerHandle | InnerTimer] = deque()
        self.timers: dict[str, InnerTimer] = {}
        self.threads_seen = False
        self.closed = False
        self._heap: list[tuple[int, int, InnerTimer]] = []
        self._keeper = keeper
        self._number = zlib.crc32(seed.encode()) << 16
        self._spun = 0
        self._root = Scope("")
        self._loose = Scope("~/")
        self._tasks: list[InnerTask] = []
        self._prune_at = 16
        if "anyio" in sys.modules and not _anyio_is_patched:
            _patch_anyio()

    # --- running ---------------------------------------------------------------------------------------------------

    def enter(self) -> tuple[Any, Any]:
        """Become the running loop of this thread; returns what `leave` puts back."""
        before = (_get_running_loop(), sys.get_asyncgen_hooks())
        _set_running_loop(self)
        sys.set_asyncgen_hooks(None, self._finalize_generator)
        return before

    def leave(self, before: tuple[Any, Any]) -> None:
        _set_running_loop(before[0])
        sys.set_asyncgen_hooks(*before[1])

    def pump(self, budget: int) -> int:
        """Run ready callbacks, at most `budget`; returns what is left of it. 0 with `is_settled` false: go on later."""
        ready = self.ready
        budget_here = min(budget, SPIN_MAX - self._spun)
        left = budget_here
        while ready and left:
            left -= 1
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle._context.run(handle._callback, *handle._args)
            except SystemExit:
                pass  # The task that raised it carries it as its outcome; a workflow does not end the worker.
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # A callback is user code; the loop outlives it.
                self.call_exception_handler({"message": f"Exception in callback {handle!r}", "exception": error})
        self._spun += budget_here - left
        return budget - (budget_here - left)

    @property
    def is_settled(self) -> bool:
        return not self.ready or self._spun >= SPIN_MAX

    def move(self, at_us: int) -> None:
        """A row is about to be delivered: time moves on, and the count towards SPIN_MAX starts anew."""
        self._spun = 0
        if at_us > self.now_us:
            self.now_us = at_us

    def fire(self, timer: InnerTimer) -> None:
        """The journal says that `timer` is due."""
        del self.timers[timer.key]
        self.move(timer.due_us)  # The clock that noticed may be ahead of the one that stamped the row.
        self.ready.append(timer)

    def earliest(self) -> InnerTimer | None:
        """The timer that is due first."""
        heap = self._heap
        while heap and heap[0][2].key not in self.timers:
            heapq.heappop(heap)
        return heap[0][2] if heap else None

    def shut(self) -> None:
        """Drop all tasks, newest first, by `Evicted`, which neither `except Exception` nor a handler of CancelledError
        catches."""
        self.closed = True
        self.ready.clear()
        self.timers.clear()
        self._heap.clear()
        tasks, self._tasks = self._tasks, []
        if not any(not task.done() for task in tasks):
            return
        before = self.enter()
        try:
            for task in reversed(tasks):
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]  # as asyncio's own gather does
                    coro = task.get_coro()
                    if coro is not None:
                        _enter_task(self, task)  # anyio's scopes want to be left by the task that entered them.
                        try:
                            _close(coro)
                        finally:
                            _leave_task(self, task)
        finally:
            self.leave(before)
            self.ready.clear()

    def living_tasks(self) -> list[InnerTask]:
        return [task for task in self._tasks if not task.done()]

    # --- keys ------------------------------------------------------------------------------------------------------

    def key_for(self, name: str) -> str:
        """The next key for `name` in the scope of the task that asks."""
        if _get_running_loop() is not self:
            raise _misplaced(name)
        task = current_task(self)
        scope = self._loose if task is None else task.scope  # type: ignore[attr-defined]  # all tasks here are ours
        counts: dict[str, int] = scope.counts
        count = counts.get(name, 0) + 1
        counts[name] = count
        if "#" in name or "/" in name or "%" in name or len(name) > KEY_PART_MAX:
            name = _quoted(name)
        return f"{scope.prefix}{name}" if count == 1 else f"{scope.prefix}{name}#{count}"

    def claim_key(self, key: str) -> str:
        """Take a key that the user chose; it counts for the whole execution, in whatever task."""
        if _get_running_loop() is not self:
            raise _misplaced(key)
        check_name(key, where="key", max_bytes=KEY_BYTES_MAX)
        if _GENERATED.search(key):
            raise ValueError(
                f"The key {key!r} looks like one that Perdure makes ('3/fetch', 'fetch#2'); "
                "do not begin with a number and a slash, end with # and a number, or use %."
            )
        counts = self._root.counts
        if key in counts:
            raise DuplicateKey(
                f"The key {key!r} is used twice in this execution. A key names one call; "
                "put what tells the calls apart into it (an order's number, the round of a loop)."
            )
        counts[key] = 1
        return key

    def next_number(self) -> int:
        self._number += 1
        return self._number

    # --- what asyncio asks of a loop -------------------------------------------------------------------------------

    def time(self) -> float:
        return self.now_us / 1e6

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> InnerHandle:
        handle = InnerHandle(callback, args, self, contextvars.copy_context() if context is None else context)
        if not self.closed:
            self.ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> InnerTimer:
        return self._call_at_us(self.now_us + _us(delay), callback, args, context)

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> InnerTimer:
        due_us = _us(when)
        if due_us / 1e6 < when < FAR_US / 1e6:  # Whoever compares time() with `when` must find it reached.
            due_us += 1
        return self._call_at_us(due_us, callback, args, context)

    def _call_at_us(
        self, due_us: int, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> InnerTimer:
        if context is None:
            context = contextvars.copy_context()
        due_us = min(due_us, FAR_US)
        if self.closed:
            return InnerTimer("", due_us, callback, args, self, context)
        if due_us <= self.now_us:  # Due already: nothing to wait for, nothing to record.
            timer = InnerTimer("", due_us, callback, args, self, context)
            self.ready.append(timer)
            return timer
        timer = InnerTimer(self._keeper.timer_asked(self.key_for("timer")), due_us, callback, args, self, context)
        self.timers[timer.key] = timer
        heapq.heappush(self._heap, (due_us, self.next_number(), timer))
        return timer

    def forget_timer(self, timer: InnerTimer) -> None:
        if self.timers.pop(timer.key, None) is None:
            return  # It has fired, or was due when it was made.
        self._keeper.timer_cancelled(timer.key)
        if len(self._heap) > 64 and len(self._heap) > 2 * len(self.timers):
            self._heap = [entry for entry in self._heap if entry[2].key in self.timers]
            heapq.heapify(self._heap)

    def rename_timer(self, key: str, new_key: str) -> None:
        timer = self.timers.pop(key)
        timer.key = new_key
        self.timers[new_key] = timer

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
        above: Scope = self._loose if parent is None else parent.scope  # type: ignore[attr-defined]  # as in key_for
        path = _path(above)
        return self._add_task(coro, Scope(path + "/"), name or path, context)

    def create_main(self, coro: Coroutine[Any, Any, Any], context: contextvars.Context) -> InnerTask:
        return self._add_task(coro, self._root, "workflow", context)

    def _add_task(self, coro: Any, scope: Scope, name: str, context: contextvars.Context | None) -> InnerTask:
        task = InnerTask(coro, self, scope, name, context)
        if self.closed:  # Started by a `finally` block during eviction: it never runs.
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # as in shut
            _close(coro)
            return task
        # A strong reference: asyncio itself holds tasks weakly, and when the collector comes by is not replayable.
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

    def get_exception_handler(self) -> None:
        return None

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        _log.error("%s", context.get("message", "Unhandled error in workflow code"), exc_info=context.get("exception"))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.closed:
            self.default_exception_handler(context)

    def call_soon_threadsafe(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: contextvars.Context | None = None
    ) -> NoReturn:
        self.threads_seen = True
        raise Misplaced(
            "A thread cannot reach into a workflow's code, because a replay has no threads. "
            'Put the threaded work into a step: `await ctx.step("name", function, …)` runs sync functions in a thread.'
        )

    def _finalize_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """An async generator was dropped half-way: close it in a task of its own, as asyncio does."""
        running = _get_running_loop()
        if self.closed or _collecting or running is not self:
            # At a moment that no replay repeats: its `finally` runs, but nothing in it can be asked for.
            _set_running_loop(self if self.closed else None)
            try:
                _close_generator(generator)
            finally:
                _set_running_loop(running)
            return
        path = _path(self._loose)
        self._add_task(generator.aclose(), Scope(path + "/"), path, None)


def _misplaced(name: str) -> Misplaced:
    return Misplaced(
        f"{name!r} was asked for outside of its workflow's code. A Context works only in the `async def` of its "
        "workflow, not inside a step, a thread or another event loop."
    )


def _refusal(name: str, is_async: bool, advice: str) -> Callable[..., Any]:
    message = f"loop.{name} does not work in a workflow's body, which must replay without input/output. {advice}"

    def refuse(self: InnerLoop, *args: Any, **kwargs: Any) -> NoReturn:
        raise Misplaced(message)

    async def refuse_async(self: InnerLoop, *args: Any, **kwargs: Any) -> NoReturn:
        raise Misplaced(message)

    chosen: Callable[..., Any] = refuse_async if is_async else refuse
    chosen.__name__ = name
    return chosen


def _refuse_the_rest() -> None:
    """Everything else that a loop can do raises, and says where it belongs."""
    to_step = 'Do it in a step: `await ctx.step("name", function, …)` runs async functions in the worker\'s own loop '
    to_step += "and sync ones in a thread."
    for name, member in vars(asyncio.AbstractEventLoop).items():
        if name.startswith("_") or name in vars(InnerLoop) or not callable(member):
            continue
        setattr(InnerLoop, name, _refusal(name, asyncio.iscoroutinefunction(member), to_step))


_refuse_the_rest()


# --- time ----------------------------------------------------------------------------------------------------------


def _us(seconds: float) -> int:
    if not seconds < FAR_US / 1e6:  # also true for NaN
        if math.isnan(seconds):
            raise ValueError("A time of NaN seconds never comes.")
        return FAR_US
    return math.ceil(max(seconds, 0.0) * 1e6)


def _quoted(name: str) -> str:
    """`name` as a part of a key: never mistaken for a scope or a number, never too long, never another name's."""
    if len(name) > KEY_PART_MAX:
        return f"{name[: KEY_PART_MAX // 2].replace('%', '')}%{_hash(name)}"
    if not _GENERATED.search(name):
        return name
    return name.replace("%", "%25").replace("#", "%23").replace("/", "%2F")


def _path(above: Scope) -> str:
    """The path of the next task of a scope."""
    above.children += 1
    path = f"{above.prefix}{above.children}"
    return path if len(path) <= KEY_PART_MAX else f"~{_hash(path)}"


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


# --- closing -------------------------------------------------------------------------------------------------------


def _close(coro: Any) -> None:
    """End a coroutine by `Evicted`, thrown in again at each await of its `finally` blocks.

    Not by `close()`: when an inner coroutine awaits while it is closed, that leaves it suspended and goes on outside.
    """
    if inspect.iscoroutine(coro) and inspect.getcoroutinestate(coro) == inspect.CORO_CREATED:
        for held in [] if coro.cr_frame is None else list(coro.cr_frame.f_locals.values()):
            inner = getattr(held, "_coro", held)  # anyio's wrapper holds the coroutine that it never began.
            if inspect.iscoroutine(inner):
                inner.close()
        return coro.close()
    for _ in range(1_000):
        try:
            coro.throw(Evicted("The execution leaves memory; it goes on elsewhere."))
        except KeyboardInterrupt:
            raise
        except (StopIteration, StopAsyncIteration, Evicted):
            return None
        except BaseException as error:  # User code; there is nobody left to tell.
            return _log.debug("Error while an execution left memory", exc_info=error)
    _undead.append(coro)
    return _log.warning("%r does not end: it swallows every exception.", coro)


_undead: Final[list[Any]] = []
"""Coroutines that would not end: freeing one would run it again, in whatever code happens to let go of it."""


def _close_generator(generator: AsyncGenerator[Any, Any]) -> None:
    closing = generator.aclose()
    try:
        closing.send(None)
    except KeyboardInterrupt:
        raise
    except BaseException:  # Closed (StopIteration), or user code failed and there is nobody left to tell.
        return
    _close(closing)


_collecting = False


def _note_collection(phase: str, info: dict[str, int]) -> None:
    global _collecting
    _collecting = phase == "start"


gc.callbacks.append(_note_collection)


# --- where code waits ----------------------------------------------------------------------------------------------

_NOT_USERS: Final = (
    asyncio.__file__.rpartition("__init__")[0],
    contextlib.__file__,
    __file__.rpartition("inner_loop")[0],
)


def where(coro: Any) -> str | None:
    """The user's line at which `coro` waits, as `file:line`."""
    found = None
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None) or getattr(coro, "ag_frame", None)
        if isinstance(frame, types.FrameType) and not frame.f_code.co_filename.startswith(_NOT_USERS):
            found = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None) or getattr(coro, "ag_await", None)
    return found


# --- what asyncio and anyio keep by address ------------------------------------------------------------------------

_get_running_loop = asyncio._get_running_loop
_set_running_loop = asyncio._set_running_loop
_enter_task = asyncio.tasks._enter_task
_leave_task = asyncio.tasks._leave_task
_anyio_is_patched = False


def _number_gathered(self: Any) -> int:
    loop = self.get_loop()
    if not isinstance(loop, InnerLoop):
        return object.__hash__(self)
    number: int | None = getattr(self, "_perdure_number", None)
    if number is None:
        number = self._perdure_number = loop.next_number()
    return number


def _patch_asyncio() -> None:
    """`as_completed` makes its tasks in the order of a set of coroutines, that is, of addresses. Inside an inner loop
    it gets tasks made in the order of the list. The function's code is exchanged, so that `from asyncio import
    as_completed` gets it too, however early it ran. Outside of inner loops nothing changes."""
    asyncio.tasks._GatheringFuture.__hash__ = _number_gathered  # type: ignore[attr-defined]

    there = vars(asyncio.tasks)
    original = asyncio.as_completed
    stdlib = types.FunctionType(original.__code__, there, "as_completed", original.__defaults__)
    stdlib.__kwdefaults__ = original.__kwdefaults__

    def in_order(fs: Any, *, timeout: float | None = None) -> Any:
        if isinstance(asyncio._get_running_loop(), InnerLoop) and isinstance(fs, Iterable):
            fs = [asyncio.ensure_future(one) for one in dict.fromkeys(fs)]
        return stdlib(fs, timeout=timeout)

    def as_completed(fs: Any, *, timeout: float | None = None) -> Any:
        return _perdure_as_completed(fs, timeout=timeout)  # type: ignore[name-defined]  # noqa: F821  # found in asyncio.tasks

    there["_perdure_as_completed"] = in_order
    original.__code__ = as_completed.__code__


def _patch_anyio() -> None:
    """anyio keeps cancel scopes in sets; those entered inside an inner loop get a number instead of their address."""
    global _anyio_is_patched
    _anyio_is_patched = True
    from anyio._backends import _asyncio as backend  # An optional guest: never imported unless the user did.

    class NumberedScope(backend.CancelScope):
        __slots__ = ("_number",)

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            loop = _get_running_loop()
            self._number = loop.next_number() if isinstance(loop, InnerLoop) else object.__hash__(self)
            super().__init__(*args, **kwargs)

        def __hash__(self) -> int:
            return self._number

    plain_run = backend.AsyncIOBackend.run_sync_in_worker_thread

    async def run_sync_in_worker_thread(*args: Any, **kwargs: Any) -> Any:
        # Refused before the thread exists: it could never report back, and would keep the process from ending.
        loop = _get_running_loop()
        if isinstance(loop, InnerLoop):
            loop.call_soon_threadsafe(lambda: None)
        return await plain_run(*args, **kwargs)

    backend.AsyncIOBackend.run_sync_in_worker_thread = run_sync_in_worker_thread  # type: ignore[method-assign]
    NumberedScope.__name__ = NumberedScope.__qualname__ = "CancelScope"
    backend.CancelScope = NumberedScope  # type: ignore[misc]  # the name by which anyio makes its scopes


_patch_asyncio()
