from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.sdk.workflows.steps import StepCall

THREADS_MAX = 64
THREAD_NAME = "perdure-step"


class StepThreads:
    """Threads for sync steps of a worker with this capacity."""

    def __init__(self, capacity: int) -> None:
        count = min(capacity, THREADS_MAX)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=THREAD_NAME)
        self.free = asyncio.Semaphore(count)
        """Acquired before a sync step begins, released at its thread's end."""

    async def run(self, step: StepCall) -> Any:
        context = contextvars.copy_context()
        thread = self._pool.submit(context.run, _call, step)
        thread.add_done_callback(partial(self._ended, asyncio.get_running_loop()))
        try:
            value = await asyncio.wrap_future(thread)
        finally:
            del thread  # it holds the error, whose traceback holds this frame
        return await value if inspect.isawaitable(value) else value

    def _ended(self, loop: asyncio.AbstractEventLoop, thread: Future[Any]) -> None:
        """A place becomes free at the end of its thread, even if the step was given up long ago."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the thread outlived the worker
            loop.call_soon_threadsafe(self.free.release)

    def shutdown(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _call(step: StepCall) -> Any:
    try:
        return step.call()
    except StopIteration as error:  # a future cannot hold it, and the step would never end
        raise RuntimeError("the step raised StopIteration") from error
